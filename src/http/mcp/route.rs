//! Which server a request goes to, and what it is called there.

use std::{borrow::Cow, sync::Arc};

use tokio::time::Instant;

use crate::{
    gateway::Gateway,
    lists::{Caller, Target},
    mcp::{
        Raw,
        error::RpcError,
        json::{self, RawObject},
        message::Request,
        method::{self, ListKind},
    },
    servers::Server,
};

/// A request with its server.
#[derive(Debug)]
pub(crate) struct Routed {
    /// The server.
    pub(crate) server: Arc<Server>,
    /// The parameters with names as the server knows them.
    pub(crate) params: Option<Box<Raw>>,
    /// The name there, where the client knows another.
    renamed: Option<String>,
}

impl Routed {
    /// What the server calls what the request names.
    pub(crate) fn name<'r>(&'r self, request: &'r Request<'_>) -> Option<Cow<'r, str>> {
        match &self.renamed {
            Some(name) => Some(name.into()),
            None => request.known.get_str("name"),
        }
    }
}

/// Finds the server. On a server's own endpoint everything is its; on the
/// merged one the name, the URI or the completion's reference decides.
pub(crate) async fn route(
    gateway: &Gateway,
    target: &Target,
    caller: &Caller,
    method: &str,
    params: Option<&Raw>,
    deadline: Instant,
) -> Result<Routed, RpcError> {
    let merged = match target {
        Target::One(server) => {
            return Ok(Routed {
                server: Arc::clone(server),
                params: params.map(Raw::to_owned),
                renamed: None,
            });
        }
        Target::All => Merged {
            gateway,
            caller,
            deadline,
        },
    };
    match method {
        method::TOOLS_CALL => merged.by_name(ListKind::Tools, params).await,
        method::PROMPTS_GET => merged.by_name(ListKind::Prompts, params).await,
        method::RESOURCES_READ | method::RESOURCES_SUBSCRIBE | method::RESOURCES_UNSUBSCRIBE => {
            merged.by_uri(params).await
        }
        method::COMPLETE => merged.by_reference(params).await,
        _ => Err(RpcError::method_not_found(method)),
    }
}

struct Merged<'a> {
    gateway: &'a Gateway,
    caller: &'a Caller,
    deadline: Instant,
}

impl Merged<'_> {
    async fn by_name(&self, kind: ListKind, params: Option<&Raw>) -> Result<Routed, RpcError> {
        let mut params = members(params)?;
        let exposed = text(&params, "name")?;
        let (server, name) = self.resolve(kind, &exposed).await?;
        params.set("name", json::raw_str(&name));
        Ok(Routed {
            server,
            params: Some(params.to_raw()),
            renamed: Some(name),
        })
    }

    async fn resolve(
        &self,
        kind: ListKind,
        exposed: &str,
    ) -> Result<(Arc<Server>, String), RpcError> {
        let found = self
            .gateway
            .lists
            .resolve_name(kind, exposed, self.caller, self.deadline)
            .await;
        found.ok_or_else(|| {
            let what = if kind == ListKind::Tools {
                "tool"
            } else {
                "prompt"
            };
            RpcError::invalid_params(format!(
                "unknown {what} {exposed:?}: names here are {{server}}__{{name}}"
            ))
        })
    }

    async fn by_uri(&self, params: Option<&Raw>) -> Result<Routed, RpcError> {
        let uri = text(&members(params)?, "uri")?;
        let server = self.owner(&uri).await?;
        Ok(Routed {
            server,
            params: params.map(Raw::to_owned),
            renamed: None,
        })
    }

    async fn owner(&self, uri: &str) -> Result<Arc<Server>, RpcError> {
        let owner = self
            .gateway
            .lists
            .owner_of(uri, self.caller, self.deadline)
            .await;
        owner.ok_or_else(|| RpcError::resource_not_found_modern(uri))
    }

    async fn by_reference(&self, params: Option<&Raw>) -> Result<Routed, RpcError> {
        let mut params = members(params)?;
        let reference = params.get("ref").ok_or_else(|| missing("ref"))?.to_owned();
        let mut reference = RawObject::parse(&reference).map_err(|_| missing("ref"))?;
        let server = match text(&reference, "type")?.as_str() {
            "ref/prompt" => {
                let exposed = text(&reference, "name")?;
                let (server, name) = self.resolve(ListKind::Prompts, &exposed).await?;
                reference.set("name", json::raw_str(&name));
                server
            }
            "ref/resource" => self.owner(&text(&reference, "uri")?).await?,
            other => {
                return Err(RpcError::invalid_params(format!(
                    "unknown reference type {other:?}"
                )));
            }
        };
        params.set("ref", reference.to_raw());
        Ok(Routed {
            server,
            params: Some(params.to_raw()),
            renamed: None,
        })
    }
}

fn members(params: Option<&Raw>) -> Result<RawObject<'_>, RpcError> {
    let params = params.ok_or_else(|| RpcError::invalid_params("params are missing"))?;
    RawObject::parse(params).map_err(|_| RpcError::invalid_params("params have to be an object"))
}

fn text(object: &RawObject<'_>, member: &'static str) -> Result<String, RpcError> {
    object
        .get_str(member)
        .map(|text| text.into_owned())
        .ok_or_else(|| missing(member))
}

fn missing(member: &str) -> RpcError {
    RpcError::invalid_params(format!("{member} is missing or has the wrong type"))
}
