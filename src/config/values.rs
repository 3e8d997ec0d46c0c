//! Turns single values into types, with a sentence about what was expected.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    time::Duration,
};

use super::tree::{Located, Place, Value};

/// Why a value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// A more precise place than the value's own.
    pub(crate) place: Option<Place>,
    /// What was expected and what was found.
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            place: None,
            message: message.into(),
        }
    }

    fn expected(what: &str, found: &Located) -> Self {
        Self::new(format!("expected {what}, found {}", found.shown()))
    }
}

/// Any text.
pub(crate) fn text(located: &Located) -> Result<String, Problem> {
    match &located.value {
        Value::Text(text) => Ok(text.clone()),
        // Shown by kind only: the text may be a secret.
        other => Err(Problem::new(format!(
            "expected a text in quotes, found {}",
            kind(other)
        ))),
    }
}

/// What kind of value it is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Text(_) => "a text",
        Value::List(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A text that is not empty.
pub(crate) fn some_text(located: &Located) -> Result<String, Problem> {
    let text = text(located)?;
    if text.trim().is_empty() {
        return Err(Problem::new("expected a text, found an empty one"));
    }
    Ok(text)
}

/// The content of the file a text names, without the newline at its end.
pub(crate) fn file_content(located: &Located) -> Result<String, Problem> {
    if located.place == Place::Request {
        return Err(Problem::new(
            "names a file, which only a node's own configuration may",
        ));
    }
    let path = located.place.resolve(&some_text(located)?);
    match std::fs::read_to_string(&path) {
        Ok(content) => Ok(content.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err(Problem::new(format!(
            "cannot read {}: {error}",
            path.display()
        ))),
    }
}

/// `true` or `false`.
pub(crate) fn boolean(located: &Located) -> Result<bool, Problem> {
    match &located.value {
        Value::Bool(value) => Ok(*value),
        Value::Text(text) if located.place.is_untyped() => match text.to_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(Problem::expected("true or false", located)),
        },
        _ => Err(Problem::expected("true or false", located)),
    }
}

fn integer(located: &Located) -> Option<u64> {
    match &located.value {
        Value::Integer(value) => u64::try_from(*value).ok(),
        Value::Text(text) if located.place.is_untyped() => text.trim().parse().ok(),
        _ => None,
    }
}

/// A whole number within a range.
pub(crate) fn count<T>(range: RangeInclusive<T>) -> impl Fn(&Located) -> Result<T, Problem>
where
    T: TryFrom<u64> + PartialOrd + std::fmt::Display,
{
    move |located| {
        integer(located)
            .and_then(|value| T::try_from(value).ok())
            .filter(|value| range.contains(value))
            .ok_or_else(|| {
                let (low, high) = (range.start(), range.end());
                Problem::expected(&format!("a whole number from {low} to {high}"), located)
            })
    }
}

/// A whole number that is not zero.
pub(crate) fn non_zero(max: u32) -> impl Fn(&Located) -> Result<NonZeroU32, Problem> {
    move |located| {
        let value = count(1..=max)(located)?;
        NonZeroU32::new(value).ok_or_else(|| Problem::expected("a number above zero", located))
    }
}

/// A number within a range.
pub(crate) fn number(range: RangeInclusive<f64>) -> impl Fn(&Located) -> Result<f64, Problem> {
    move |located| {
        let value = match &located.value {
            Value::Float(value) => Some(*value),
            #[expect(
                clippy::cast_precision_loss,
                reason = "far below 2^52 in any range used"
            )]
            Value::Integer(value) => Some(*value as f64),
            Value::Text(text) if located.place.is_untyped() => text.trim().parse().ok(),
            _ => None,
        };
        value.filter(|value| range.contains(value)).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            Problem::expected(&format!("a number from {low} to {high}"), located)
        })
    }
}

/// A duration with its unit, within a range.
pub(crate) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Located) -> Result<Duration, Problem> {
    move |located| {
        let within = format!(
            "a duration from {} to {}",
            show_duration(*range.start()),
            show_duration(*range.end())
        );
        let unit = "with its unit, such as \"250ms\", \"30s\", \"5m\", \"1h30m\"";
        match &located.value {
            Value::Text(text) => match parse_duration(text) {
                Some(value) if range.contains(&value) => Ok(value),
                Some(_) => Err(Problem::expected(&within, located)),
                None => Err(Problem::expected(&format!("{within} {unit}"), located)),
            },
            _ => Err(Problem::expected(
                &format!("{within} in quotes {unit}"),
                located,
            )),
        }
    }
}

/// `250ms`, `1.5s`, `1h30m`, `2d`, `0`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        seconds += amount * seconds_per(&rest[..letters])?;
        rest = rest[letters..].trim_start();
        parts += 1;
    }
    if parts == 0 {
        return None;
    }
    // Whole nanoseconds: sums of decimal parts are off by a rounding error.
    let micros = Duration::try_from_secs_f64(seconds)
        .ok()?
        .as_nanos()
        .checked_add(500)?
        / 1000;
    Some(Duration::from_micros(u64::try_from(micros).ok()?))
}

fn seconds_per(unit: &str) -> Option<f64> {
    Some(match unit {
        "ms" => 0.001,
        "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    })
}

/// A duration as it would be written.
pub(crate) fn show_duration(duration: Duration) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".into();
    }
    for (size, unit) in units {
        if millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// A number of bytes, with a unit or plain, within a range.
pub(crate) fn size<T>(range: RangeInclusive<T>) -> impl Fn(&Located) -> Result<T, Problem>
where
    T: TryFrom<u64> + PartialOrd + Copy + TryInto<u64>,
{
    move |located| {
        let bytes = match &located.value {
            Value::Text(text) => parse_size(text),
            _ => integer(located),
        };
        bytes
            .and_then(|bytes| T::try_from(bytes).ok())
            .filter(|bytes| range.contains(bytes))
            .ok_or_else(|| {
                let (low, high) = (show_size(*range.start()), show_size(*range.end()));
                let expected = format!(
                    "a size from {low} to {high}, in bytes or with a unit such as \"32KiB\", \"4MiB\""
                );
                Problem::expected(&expected, located)
            })
    }
}

/// `512`, `64KiB`, `1MB`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let amount: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    amount.checked_mul(factor)
}

fn show_size<T: TryInto<u64>>(bytes: T) -> String {
    let bytes: u64 = bytes.try_into().unwrap_or(u64::MAX);
    for (factor, unit) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(
    words: &[(&'static str, T)],
) -> impl Fn(&Located) -> Result<T, Problem> {
    move |located| {
        let listed = || {
            let quoted: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            quoted.join(" or ")
        };
        let Value::Text(text) = &located.value else {
            return Err(Problem::expected(&listed(), located));
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
            return Ok(*value);
        }
        let likeness =
            |word: &str| strsim::normalized_damerau_levenshtein(&text.to_lowercase(), word);
        let nearest = words
            .iter()
            .map(|(word, _)| (likeness(word), word))
            .filter(|(likeness, _)| *likeness >= 0.5)
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        let mut problem = Problem::expected(&listed(), located);
        if let Some((_, word)) = nearest {
            problem
                .message
                .push_str(&format!("; did you mean {word:?}?"));
        }
        Err(problem)
    }
}

/// An address to listen on; `localhost` and a missing address are understood.
pub(crate) fn listen_address(located: &Located) -> Result<SocketAddr, Problem> {
    let expected = || {
        Problem::expected(
            "an address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
            located,
        )
    };
    let Value::Text(text) = &located.value else {
        return Err(expected());
    };
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let port: u16 = port.parse().map_err(|_| expected())?;
    match host {
        "localhost" => Ok((Ipv4Addr::LOCALHOST, port).into()),
        "" | "*" => Ok((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into()),
        _ => Err(expected()),
    }
}

/// A list of texts; commas separate them where everything is text.
pub(crate) fn texts(located: &Located) -> Result<Vec<String>, Problem> {
    match &located.value {
        Value::List(items) => items
            .iter()
            .map(|item| {
                some_text(item).map_err(|problem| Problem {
                    place: Some(item.place.clone()),
                    ..problem
                })
            })
            .collect(),
        Value::Text(list) if located.place.is_untyped() => Ok(list
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()),
        other => Err(Problem::new(format!(
            "expected a list of texts such as [\"one\", \"two\"], found {}",
            kind(other)
        ))),
    }
}

#[cfg(test)]
mod tests;
