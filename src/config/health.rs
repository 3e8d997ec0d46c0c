//! `[health]`: probes of replicas.

use std::{num::NonZeroU32, time::Duration};

use super::{section::Section, values};

/// Probes of replicas.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Time between probes of one replica, fleet-wide. Default 30 s.
    pub interval: Duration,
    /// Longest wait for a probe's answer; at most `interval`. Default 5 s.
    pub timeout: Duration,
    /// Failed probes in a row until a replica counts as unhealthy. Default 3.
    pub unhealthy_after: NonZeroU32,
    /// Passed probes in a row until it counts as healthy again. Default 2.
    pub healthy_after: NonZeroU32,
    /// Whether replicas are probed; calls show trouble in any case. Default true.
    pub probe: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            unhealthy_after: NonZeroU32::MIN.saturating_add(2),
            healthy_after: NonZeroU32::MIN.saturating_add(1),
            probe: true,
        }
    }
}

impl Health {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let millis = Duration::from_millis;
        let within = || values::duration(millis(100)..=millis(3_600_000));
        let health = Self {
            interval: section.read("interval", defaults.interval, within()),
            timeout: section.read("timeout", defaults.timeout, within()),
            unhealthy_after: section.read(
                "unhealthy_after",
                defaults.unhealthy_after,
                values::non_zero(100),
            ),
            healthy_after: section.read(
                "healthy_after",
                defaults.healthy_after,
                values::non_zero(100),
            ),
            probe: section.read("probe", defaults.probe, values::boolean),
        };
        if health.timeout > health.interval {
            let key = if section.has("timeout") {
                "timeout"
            } else {
                "interval"
            };
            section.fail(
                key,
                "`timeout` is longer than `interval`: probes would overlap",
            );
        }
        section.finish();
        health
    }
}
