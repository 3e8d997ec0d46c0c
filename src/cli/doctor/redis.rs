//! Redis: reachable, new enough, set up not to forget, near, closed to strangers.

use std::time::Duration;

use super::Finding;
use crate::{
    config::{Config, Redis},
    store::redis::{
        RedisSettings,
        examine::{Examined, examine},
    },
};

/// A list that is not in L1 waits for a few answers.
const SLOW: Duration = Duration::from_millis(20);
/// Session tokens are judged by the clocks of nodes.
const CLOCK: Duration = Duration::from_secs(5);

/// `is_engine_wanted`: whether servers are deployed beside it.
pub(super) async fn look(config: &Config, is_engine_wanted: bool) -> Vec<Finding> {
    let Some(redis) = &config.redis else {
        let found = "none configured: the store is embedded, the fleet is one node";
        return vec![Finding::good("redis", found)];
    };
    let mut findings: Vec<_> = match examine(&settings(redis)).await {
        Ok(masters) => masters.iter().flat_map(judge).collect(),
        Err(unusable) => return vec![Finding::wrong("redis", unusable.why, unusable.cure)],
    };
    if is_engine_wanted {
        findings.extend(openness(redis.url.reveal()));
    }
    findings
}

/// A node cannot see which networks Redis is in, only whether it asks who comes.
fn openness(url: &str) -> Option<Finding> {
    let has_password = url::Url::parse(url).is_ok_and(|url| url.password().is_some());
    (!has_password).then(|| {
        let found = "asks for no password: deployed servers with a way out may reach it, and change all the fleet knows";
        let cure = "set a password (requirepass, or a user of its own) and redis.password, or keep Redis on \
                    a network that containers cannot reach";
        Finding::warning("redis access", found, cure)
    })
}

fn settings(redis: &Redis) -> RedisSettings {
    RedisSettings {
        prefix: redis.prefix.clone(),
        ca_file: redis.ca_file.clone(),
        connect_timeout: redis.connect_timeout,
        command_timeout: redis.command_timeout,
        ..RedisSettings::new(redis.url.reveal())
    }
}

fn judge(master: &Examined) -> Vec<Finding> {
    let address = &master.address;
    let version = master.version.as_deref().unwrap_or("of unknown version");
    let found = format!("{address} is {version}");
    let mut findings = vec![if master.is_too_old {
        Finding::wrong(
            "redis",
            found,
            "use Redis 7 or newer, or a compatible server",
        )
    } else {
        Finding::good("redis", found)
    }];
    findings.extend(master.policy.as_ref().map(|policy| {
        let found = format!("{address} has maxmemory-policy {policy}");
        let bounded = master.max_memory.is_some_and(|most| most > 0);
        match policy.as_str() {
            "noeviction" => Finding::good("redis memory", found),
            _ if !bounded => Finding::good("redis memory", format!("{found}, and no maxmemory")),
            _ => Finding::warning(
                "redis memory",
                found,
                "set maxmemory-policy noeviction: sessions and settings of the fleet would be thrown away",
            ),
        }
    }));
    findings.extend(fullness(master));
    let found = format!("{address} answers within {:.1?}", master.latency);
    findings.push(if master.latency > SLOW {
        let cure = "run Redis nearer to the nodes, or look at its load (`redis-cli --latency`, `slowlog get`)";
        Finding::warning("redis latency", found, cure)
    } else {
        Finding::good("redis latency", found)
    });
    findings.extend(
        master
            .clock_off
            .map(|off| clock("redis clock", address, off)),
    );
    findings
}

fn fullness(master: &Examined) -> Option<Finding> {
    let (most, used) = (master.max_memory?, master.used_memory?);
    let is_tight = most > 0 && used > most / 10 * 9;
    is_tight.then(|| {
        let found = format!("{} uses {used} of {most} bytes", master.address);
        let cure = "give Redis more memory (maxmemory): a full one refuses writes";
        Finding::wrong("redis memory", found, cure)
    })
}

/// How far another machine's clock is from this one's.
pub(super) fn clock(check: &'static str, whose: &str, off: Duration) -> Finding {
    let found = format!("{whose} is {:.1?} off this machine", off);
    if off > CLOCK {
        let cure = "let both machines' clocks be set by the same time servers (`timedatectl set-ntp true`)";
        return Finding::warning(check, found, cure);
    }
    Finding::good(check, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Verdict;

    fn master() -> Examined {
        Examined {
            address: "redis://r".into(),
            version: Some("7.2.4".into()),
            is_too_old: false,
            policy: Some("noeviction".into()),
            max_memory: Some(1000),
            used_memory: Some(10),
            latency: Duration::from_micros(200),
            clock_off: Some(Duration::from_millis(3)),
        }
    }

    fn results(master: &Examined) -> Vec<(&'static str, Verdict)> {
        let findings = judge(master);
        findings.iter().map(|it| (it.check, it.result)).collect()
    }

    #[test]
    fn a_redis_for_everybody_is_a_trouble_where_servers_are_deployed() {
        for open in [
            "redis://r:6379",
            "redis-cluster://r:1?node=s:2",
            "redis://me@r",
        ] {
            let finding = openness(open).expect("a warning");
            assert_eq!(finding.result, Verdict::Warning, "{open}");
        }
        for closed in ["redis://:word@r:6379", "rediss-sentinel://me:word@r"] {
            assert_eq!(openness(closed), None, "{closed}");
        }
    }

    #[test]
    fn each_trouble_is_told_apart() {
        let all = results(&master());
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|(_, verdict)| *verdict == Verdict::Good));
        let evicts = Examined {
            policy: Some("allkeys-lru".into()),
            ..master()
        };
        assert_eq!(results(&evicts)[1], ("redis memory", Verdict::Warning));
        let endless = Examined {
            max_memory: Some(0),
            ..evicts
        };
        assert_eq!(results(&endless)[1], ("redis memory", Verdict::Good));
        let full = Examined {
            used_memory: Some(990),
            ..master()
        };
        assert!(results(&full).contains(&("redis memory", Verdict::Wrong)));
        let far = Examined {
            latency: Duration::from_millis(80),
            clock_off: Some(Duration::from_secs(90)),
            ..master()
        };
        assert_eq!(results(&far)[2], ("redis latency", Verdict::Warning));
        assert_eq!(results(&far)[3], ("redis clock", Verdict::Warning));
        // A user that may ask for nothing is no trouble.
        let silent = Examined {
            version: None,
            policy: None,
            max_memory: None,
            used_memory: None,
            clock_off: None,
            ..master()
        };
        assert_eq!(
            results(&silent),
            [("redis", Verdict::Good), ("redis latency", Verdict::Good)]
        );
    }
}
