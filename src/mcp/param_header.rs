//! Tool parameters that are repeated in `Mcp-Param-*` headers, as the tool's
//! `inputSchema` says with `x-mcp-header`.
//!
//! Whether arguments satisfy the schema is the upstream's business.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Raw,
    error::RpcError,
    header::{self, PARAM_PREFIX},
    json::{self, RawObject},
};

const ANNOTATION: &str = "x-mcp-header";

/// Deepest nesting of schemas that is looked at.
const MAX_DEPTH: u32 = 64;

/// Most annotated parameters of one tool.
const MAX_PARAMS: usize = 64;

/// Keywords whose value is a schema, a list of schemas or a map of schemas.
/// An annotation below one of them cannot be tied to one argument.
const OTHER_SUBSCHEMAS: [&str; 21] = [
    "$defs",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "definitions",
    "dependencies",
    "dependentSchemas",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "patternProperties",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// The annotated parameters of one tool.
#[derive(Debug, Clone, Default)]
pub struct ParamHeaders {
    params: Vec<Param>,
}

#[derive(Debug, Clone)]
struct Param {
    /// `mcp-param-{label}`
    header: HeaderName,
    /// From the root of the arguments.
    path: Vec<String>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Boolean,
}

/// Why a tool's annotations are invalid; such a tool is not offered over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid x-mcp-header: {why}")]
pub struct InvalidAnnotation {
    /// For people.
    pub why: String,
}

fn invalid(path: &[String], why: &str) -> InvalidAnnotation {
    let place = if path.is_empty() {
        "the root".to_owned()
    } else {
        path.join(".")
    };
    InvalidAnnotation {
        why: format!("at {place}: {why}"),
    }
}

impl ParamHeaders {
    /// Reads the annotations of an `inputSchema`.
    ///
    /// # Errors
    /// When one stands where it may not stand, or has a wrong name or type.
    pub fn from_schema(schema: &Raw) -> Result<Self, InvalidAnnotation> {
        let text = schema.get().as_bytes();
        let mentions = |word: &[u8]| memchr::memmem::find(text, word).is_some();
        let mut found = Self::default();
        // Nearly every tool has none; an escaped spelling has a backslash.
        if mentions(ANNOTATION.as_bytes()) || mentions(b"\\u") {
            found.walk(schema, &mut Vec::new(), Reach::Properties, MAX_DEPTH)?;
        }
        Ok(found)
    }

    fn walk(
        &mut self,
        schema: &Raw,
        path: &mut Vec<String>,
        reach: Reach,
        depth: u32,
    ) -> Result<(), InvalidAnnotation> {
        let Ok(schema) = RawObject::parse(schema) else {
            return Ok(());
        };
        let Some(depth) = depth.checked_sub(1) else {
            return Err(invalid(path, "the schema is nested too deeply"));
        };
        if let Some(label) = schema.get(ANNOTATION) {
            if reach == Reach::Elsewhere || path.is_empty() {
                let why = "only properties that are reached through `properties` can have one";
                return Err(invalid(path, why));
            }
            self.add(&schema, label, path)?;
        }
        if let Some(properties) = schema.get_object("properties") {
            for (name, property) in properties.iter() {
                path.push(name.to_owned());
                self.walk(property, path, reach, depth)?;
                path.pop();
            }
        }
        for keyword in OTHER_SUBSCHEMAS {
            if let Some(value) = schema.get(keyword) {
                self.walk_others(keyword, value, path, depth)?;
            }
        }
        Ok(())
    }

    fn walk_others(
        &mut self,
        keyword: &str,
        value: &Raw,
        path: &mut Vec<String>,
        depth: u32,
    ) -> Result<(), InvalidAnnotation> {
        let is_map = matches!(
            keyword,
            "$defs" | "definitions" | "dependencies" | "dependentSchemas" | "patternProperties"
        );
        path.push(keyword.to_owned());
        if is_map {
            let map = RawObject::parse(value).unwrap_or_default();
            for (_, schema) in map.iter() {
                self.walk(schema, path, Reach::Elsewhere, depth)?;
            }
        } else if let Ok(schemas) = json::elements(value) {
            for schema in schemas {
                self.walk(schema, path, Reach::Elsewhere, depth)?;
            }
        } else {
            self.walk(value, path, Reach::Elsewhere, depth)?;
        }
        path.pop();
        Ok(())
    }

    fn add(
        &mut self,
        schema: &RawObject<'_>,
        label: &Raw,
        path: &[String],
    ) -> Result<(), InvalidAnnotation> {
        let label = json::as_str(label)
            .filter(|label| !label.is_empty())
            .ok_or_else(|| invalid(path, "the name must be a non-empty string"))?;
        let header = HeaderName::from_bytes(format!("{PARAM_PREFIX}{label}").as_bytes())
            .map_err(|_| invalid(path, &format!("{label:?} cannot stand in a header's name")))?;
        let kind = match schema.get_str("type").as_deref() {
            Some("string") => Kind::Text,
            Some("integer") => Kind::Integer,
            Some("boolean") => Kind::Boolean,
            _ => return Err(invalid(path, "the type must be string, integer or boolean")),
        };
        if self.params.iter().any(|param| param.header == header) {
            return Err(invalid(path, &format!("{label:?} is used more than once")));
        }
        if self.params.len() == MAX_PARAMS {
            return Err(invalid(path, "there are more than 64"));
        }
        self.params.push(Param {
            header,
            path: path.to_vec(),
            kind,
        });
        Ok(())
    }

    /// Whether no parameter is annotated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Whether the headers agree with the arguments of a call.
    ///
    /// # Errors
    /// `-32020` when one is missing, repeated, malformed or different.
    pub fn check(&self, headers: &HeaderMap, arguments: Option<&Raw>) -> Result<(), RpcError> {
        for param in &self.params {
            let found = header::single_decoded(headers, &param.header)?;
            let value = param.value(arguments).map_err(|json::NotAnObject| {
                RpcError::header_mismatch(format!("arguments.{} is ambiguous", param.place()))
            })?;
            let agrees = match (&found, value) {
                (None, None) => true,
                (Some(found), Some(value)) => param.agrees(found, value),
                (None, Some(value)) => render(value).is_none(),
                (Some(_), None) => false,
            };
            if !agrees {
                let problem = match found {
                    None => "is missing; it has to repeat",
                    Some(_) => "does not match",
                };
                return Err(RpcError::header_mismatch(format!(
                    "the {} header {problem} arguments.{}",
                    header::display(&param.header),
                    param.place(),
                )));
            }
        }
        Ok(())
    }

    /// The headers that go with these arguments.
    #[must_use]
    pub fn headers_for(&self, arguments: Option<&Raw>) -> Vec<(HeaderName, HeaderValue)> {
        let header = |param: &Param| {
            let value = param.value(arguments).ok().flatten()?;
            let text = match (param.kind, as_integer(value.get())) {
                (Kind::Integer, Some(number)) => Cow::Owned(number.to_string()),
                (Kind::Text | Kind::Integer | Kind::Boolean, _) => render(value)?,
            };
            Some((param.header.clone(), header::encode_value(&text)))
        };
        self.params.iter().filter_map(header).collect()
    }

    /// The `Mcp-Param-*` headers that the schema does not know; they are passed on.
    pub fn unknown<'h>(
        &'h self,
        headers: &'h HeaderMap,
    ) -> impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)> {
        headers.iter().filter(|(name, _)| {
            name.as_str().starts_with(PARAM_PREFIX)
                && !self.params.iter().any(|param| param.header == *name)
        })
    }
}

/// How a subschema is reached from the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Properties,
    Elsewhere,
}

impl Param {
    fn place(&self) -> String {
        self.path.join(".")
    }

    /// The argument; `None` when absent or null. An error when a name on the
    /// way is repeated.
    fn value<'a>(&self, arguments: Option<&'a Raw>) -> Result<Option<&'a Raw>, json::NotAnObject> {
        let mut value = arguments;
        for name in &self.path {
            let Some(object) = value else { break };
            value = match json::members(object, [name.as_str()]) {
                Ok([value]) => value,
                Err(json::Unreadable::NotAnObject) => None,
                Err(json::Unreadable::Repeated(_)) => return Err(json::NotAnObject),
            };
        }
        Ok(value.filter(|value| !json::is_null(value)))
    }

    /// Integers are compared as numbers: `42` is `42.0`.
    fn agrees(&self, found: &str, value: &Raw) -> bool {
        if self.kind == Kind::Integer
            && let (Some(found), Some(value)) = (as_integer(found), as_integer(value.get()))
        {
            return found == value;
        }
        render(value).is_some_and(|value| value == found)
    }
}

/// A string's content, or a number or boolean as written; nothing else can
/// stand in a header.
fn render(value: &Raw) -> Option<Cow<'_, str>> {
    match value.get().as_bytes()[0] {
        b'"' => json::as_str(value),
        b'{' | b'[' => None,
        _ => Some(Cow::Borrowed(value.get())),
    }
}

/// The number of a text in JSON's notation, if it is an integer that every
/// reader represents exactly.
fn as_integer(text: &str) -> Option<i64> {
    const MAX_EXACT: i64 = (1 << 53) - 1;
    let starts_like_one = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let number: f64 = text.parse().ok().filter(|_| starts_like_one)?;
    let is_exact = number.fract() == 0.0 && number.abs() <= MAX_EXACT as f64;
    is_exact.then_some(number as i64)
}

#[cfg(test)]
mod tests;
