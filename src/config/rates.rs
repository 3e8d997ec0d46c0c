//! `[rate_limits]`, and what a rate looks like wherever one is configured.

use std::{collections::BTreeMap, time::Duration};

use super::{
    section::Section,
    tree::{Located, Table, Value},
    values::{self, Problem},
};
use crate::store::rates::Rate;

/// What every client may do, whatever the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RateLimits {
    /// All calls of a client together. Default: no limit.
    pub principal: Option<Rate>,
}

/// Tokens per second: a token is at least a microsecond.
const MAX_PER_SECOND: u128 = 1_000_000;
/// How long a burst may take to come back: state is kept for so long.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);

impl RateLimits {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let limits = Self {
            principal: section.optional("principal", rate),
        };
        section.finish();
        limits
    }
}

/// The rates of single tools, by name.
pub(super) fn by_tool(section: &mut Section<'_>, key: &str) -> BTreeMap<String, Rate> {
    let parse = |located: &Located| match &located.value {
        Value::Table(Table(entries)) => entries
            .iter()
            .map(|entry| {
                let read = rate(&entry.value).map_err(|problem| Problem {
                    place: problem.place.or_else(|| Some(entry.value.place.clone())),
                    message: format!("tool {:?}: {}", entry.key, problem.message),
                });
                read.map(|rate| (entry.key.clone(), rate))
            })
            .collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_) => Err(Problem::new(format!(
            "expected a table of tools and rates such as {{ search = \"5/m\" }}, found {}",
            located.shown()
        ))),
    };
    section.optional(key, parse).unwrap_or_default()
}

/// `"100/s"`, or `{ rate = "100/s", burst = 200 }`.
pub(super) fn rate(located: &Located) -> Result<Rate, Problem> {
    let Value::Table(table) = &located.value else {
        return plain(located);
    };
    if let Some(unknown) = table
        .0
        .iter()
        .find(|entry| !["rate", "burst"].contains(&entry.key.as_str()))
    {
        return Err(Problem {
            place: Some(unknown.place.clone()),
            message: format!("unknown key {:?}; known here are rate, burst", unknown.key),
        });
    }
    let Some(written) = table.get("rate") else {
        return Err(Problem::new("`rate` is missing"));
    };
    let at = |written: &Located| {
        let place = written.place.clone();
        move |problem: Problem| Problem {
            place: problem.place.or(Some(place)),
            ..problem
        }
    };
    let mut rate = plain(written).map_err(at(written))?;
    if let Some(burst) = table.get("burst") {
        rate.burst = values::count(1..=1_000_000)(burst).map_err(at(burst))?;
    }
    checked(rate)
}

fn plain(located: &Located) -> Result<Rate, Problem> {
    let bad = || {
        Problem::new(format!(
            "expected a rate such as \"100/s\", \"5/m\", \"10/h\", \"1000/d\", or with what may \
             come at once {example}, found {}",
            located.shown(),
            example = "{ rate = \"100/s\", burst = 200 }"
        ))
    };
    let Value::Text(text) = &located.value else {
        return Err(bad());
    };
    let (count, unit) = text.split_once('/').ok_or_else(bad)?;
    let count: u32 = count.trim().parse().map_err(|_| bad())?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    if count == 0 {
        return Err(bad());
    }
    checked(Rate {
        count,
        per: Duration::from_secs(seconds),
        burst: count,
    })
}

fn checked(rate: Rate) -> Result<Rate, Problem> {
    if u128::from(rate.count) > MAX_PER_SECOND * u128::from(rate.per.as_secs()) {
        return Err(Problem::new("is more than 1000000 per second"));
    }
    if Duration::from_micros(rate.cost(rate.burst)) > LONGEST {
        return Err(Problem::new(
            "has a burst that would take more than 31 days to come back",
        ));
    }
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn principal(value: &str) -> Result<super::Rate, String> {
        let text = format!("[rate_limits]\nprincipal = {value}\n");
        Config::from_toml(&text)
            .map(|config| config.rate_limits.principal.expect("a rate"))
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn rates_are_read_in_both_forms() {
        for (value, count, seconds, burst) in [
            ("\"100/s\"", 100, 1, 100),
            ("\" 5 / m \"", 5, 60, 5),
            ("\"10/h\"", 10, 3600, 10),
            ("{ rate = \"1000/d\", burst = 7 }", 1000, 86_400, 7),
        ] {
            let rate = principal(value).expect(value);
            assert_eq!(
                (rate.count, rate.per.as_secs(), rate.burst),
                (count, seconds, burst)
            );
        }
    }

    #[test]
    fn bad_rates_are_explained() {
        for (value, told) in [
            ("5", "expected a rate such as \"100/s\""),
            ("\"5\"", "expected a rate"),
            ("\"0/s\"", "expected a rate"),
            ("\"5/w\"", "expected a rate"),
            ("\"2000000/s\"", "more than 1000000 per second"),
            ("{ rate = \"1/d\", burst = 1000 }", "31 days"),
            ("{ burst = 5 }", "`rate` is missing"),
            ("{ rate = \"1/s\", brust = 5 }", "unknown key \"brust\""),
            ("{ rate = \"1/s\", burst = 0 }", "from 1 to 1000000"),
        ] {
            let error = principal(value).expect_err(value);
            assert!(
                error.contains(told) && error.contains("rate_limits.principal"),
                "{error}"
            );
        }
    }

    #[test]
    fn servers_have_rates_of_their_own() {
        let config = Config::from_toml(
            "[servers.a]\nurl = \"http://x/\"\nrate_limit = \"50/s\"\ntool_rate_limits = { search = \"5/m\" }\n",
        )
        .expect("valid");
        let server = &config.servers[0];
        assert_eq!(server.rate_limit.expect("a rate").count, 50);
        assert_eq!(server.tool_rate_limits["search"].count, 5);
        let errors = Config::from_toml(
            "[servers.a]\nurl = \"http://x/\"\ntool_rate_limits = { search = \"5\" }\n",
        )
        .expect_err("a bad rate");
        assert!(
            errors
                .to_string()
                .contains("tool \"search\": expected a rate"),
            "{errors}"
        );
    }
}
