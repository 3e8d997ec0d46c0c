//! `/api/deployments`: what users want to run, and what runs of it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, State},
    response::Response,
};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{answer, check_may_change};
use crate::{
    deployments::{
        View,
        commands::{MAX_GRACE, Request},
    },
    gateway::Gateway,
    http::{body, error::RestError},
    store::registry::Changed,
    templates::Settings,
};

mod entry;
mod following;
pub(super) mod logs;

use entry::{DryRun, Entry};

/// `GET /api/deployments`
pub(super) async fn all(State(gateway): State<Arc<Gateway>>) -> Response {
    let views = gateway.deployments.all();
    let entries: Vec<_> = views
        .iter()
        .map(|view| Entry::new(&gateway, view))
        .collect();
    answer(&entries)
}

/// `GET /api/deployments/{deployment}`
pub(super) async fn one(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
) -> Result<Response, RestError> {
    let view = known(&gateway, &name)?;
    Ok(answer(&Entry::new(&gateway, &view).in_detail(&view)))
}

fn known(gateway: &Gateway, name: &str) -> Result<View, RestError> {
    let deployments = &gateway.deployments;
    let view = deployments.one(name);
    view.ok_or_else(|| deployments.unknown(name).into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deploy {
    template: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    replicas: Option<u32>,
    #[serde(default)]
    config: BTreeMap<String, String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    settings: Option<serde_json::Map<String, Value>>,
    #[serde(default)]
    engine: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /api/deployments`
pub(super) async fn deploy(
    State(gateway): State<Arc<Gateway>>,
    body: Body,
) -> Result<Response, RestError> {
    check_may_change(&gateway)?;
    let asked: Deploy = read(&gateway, body).await?;
    let request = Request {
        template: asked.template,
        name: asked.name,
        replicas: asked.replicas,
        settings: Settings {
            config: asked.config,
            env: asked.env,
            file: asked.settings.map(Value::Object),
        },
        engine: asked.engine,
    };
    if asked.dry_run {
        let prepared = gateway.deployments.prepare(&request).await?;
        return Ok(answer(&DryRun::new(&gateway, &prepared)));
    }
    let (view, changed) = gateway.deployments.deploy(&request).await?;
    let outcome = match changed {
        Changed::Created => "created",
        Changed::Replaced => "replaced",
        Changed::Unchanged
        | Changed::Removed
        | Changed::Unknown
        | Changed::Full
        | Changed::Moved
        | Changed::Behind => "unchanged",
    };
    Ok(accepted(&gateway, &view, Some(outcome)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    /// Seconds the servers have to end by themselves.
    #[serde(default)]
    timeout: Option<u32>,
}

/// `POST /api/deployments/{deployment}/stop`
pub(super) async fn stop(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, RestError> {
    check_may_change(&gateway)?;
    let Stop { timeout } = read(&gateway, body).await?;
    if timeout.is_some_and(|timeout| timeout > MAX_GRACE) {
        let message = format!("timeout: at most {MAX_GRACE} seconds");
        return Err(RestError::bad_request(message));
    }
    let view = gateway.deployments.stop(&name, timeout).await?;
    Ok(accepted(&gateway, &view, None))
}

/// `POST /api/deployments/{deployment}/restart`
pub(super) async fn restart(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
) -> Result<Response, RestError> {
    check_may_change(&gateway)?;
    let view = gateway.deployments.restart(&name).await?;
    Ok(accepted(&gateway, &view, None))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scale {
    replicas: u32,
}

/// `POST /api/deployments/{deployment}/scale`
pub(super) async fn scale(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, RestError> {
    check_may_change(&gateway)?;
    let Scale { replicas } = read(&gateway, body).await?;
    let view = gateway.deployments.scale(&name, replicas).await?;
    Ok(accepted(&gateway, &view, None))
}

/// `DELETE /api/deployments/{deployment}`
pub(super) async fn remove(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
) -> Result<Response, RestError> {
    check_may_change(&gateway)?;
    match gateway.deployments.remove(&name).await {
        Ok(Some(view)) => Ok(accepted(&gateway, &view, None)),
        Ok(None) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().remove(CONTENT_TYPE);
            Ok(response)
        }
        Err(error) => Err(error.into()),
    }
}

/// It is stored: a node with the engine brings it about.
fn accepted(gateway: &Gateway, view: &View, outcome: Option<&'static str>) -> Response {
    let entry = Entry::new(gateway, view).with_outcome(outcome);
    let mut response = answer(&entry);
    *response.status_mut() = StatusCode::ACCEPTED;
    let location = format!("/api/deployments/{}", view.name);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// A JSON object; what is wrong with it is told without its content, which
/// may be secret. Nothing at all is an empty one.
async fn read<T: DeserializeOwned>(gateway: &Gateway, body: Body) -> Result<T, RestError> {
    let limits = &gateway.config.limits;
    let bytes = body::read(body, limits.body, limits.body_timeout).await?;
    let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Data => unfit(&error.to_string()),
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => "it is not JSON".to_owned(),
        };
        RestError::bad_request(format!("the body, line {line}, column {column}: {what}"))
    })
}

/// Names of fields are no secrets; values are not repeated.
fn unfit(message: &str) -> String {
    let is_about_names =
        message.starts_with("unknown field") || message.starts_with("missing field");
    match is_about_names {
        true => message
            .split(" at line ")
            .next()
            .unwrap_or_default()
            .to_owned(),
        false => "a value is not of the kind that is expected there (values of `config` and `env` \
                  are texts; typed ones go into `settings`)"
            .to_owned(),
    }
}
