//! What a container uses.

use std::{sync::Arc, time::Duration};

use bollard::{
    models::{ContainerMemoryStats, ContainerStatsResponse},
    query_parameters::StatsOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::time::sleep;

use super::{Cause, Docker, EngineError, Operation, call::About};
use crate::engine::{Stats, Usage};

/// Between the two looks that a share of time takes. The engine's own way
/// takes two seconds.
const APART: Duration = Duration::from_millis(250);

impl Docker {
    /// What a container uses; zeros when it does not run. Takes a quarter of a second.
    ///
    /// # Errors
    /// When there is no such container or the engine does not answer.
    pub async fn stats(self: &Arc<Self>, name: &str) -> Result<Stats, EngineError> {
        let first = self.sample(name).await?;
        sleep(APART).await;
        let second = self.sample(name).await?;
        let memory = second.memory_stats.clone().unwrap_or_default();
        let pids = second.pids_stats.as_ref().and_then(|pids| pids.current);
        Ok(Stats {
            memory: in_use(&memory),
            memory_limit: memory.limit.unwrap_or_default(),
            cpu_percent: cpu_percent(&first, &second),
            pids: pids.unwrap_or_default(),
        })
    }

    /// What a container uses of what it may, from one look.
    ///
    /// # Errors
    /// When there is no such container or the engine does not answer.
    pub async fn usage(&self, name: &str) -> Result<Usage, EngineError> {
        let sample = self.sample(name).await?;
        let memory = sample.memory_stats.unwrap_or_default();
        let pids = sample.pids_stats.unwrap_or_default();
        Ok(Usage {
            pids: pids.current.unwrap_or_default(),
            pids_limit: pids.limit.unwrap_or_default(),
            memory: in_use(&memory),
            memory_limit: memory.limit.unwrap_or_default(),
        })
    }

    async fn sample(&self, name: &str) -> Result<ContainerStatsResponse, EngineError> {
        let about = About::container(Operation::ReadStats, name);
        let options = StatsOptionsBuilder::new()
            .stream(false)
            .one_shot(true)
            .build();
        let name = name.to_owned();
        let sample = async move |client: bollard::Docker| {
            let mut samples = client.stats(&name, Some(options)).boxed();
            samples.next().await.transpose()
        };
        let why = "there is no sample".to_owned();
        self.ask(&about, sample)
            .await?
            .ok_or_else(|| about.error(Cause::Answer { why }))
    }
}

/// As `docker stats` counts: without file pages that can be dropped (their
/// name differs between the two kinds of control groups).
fn in_use(memory: &ContainerMemoryStats) -> u64 {
    let usage = memory.usage.unwrap_or_default();
    let stats = memory.stats.as_ref();
    let cached = stats.and_then(|stats| {
        stats
            .get("total_inactive_file")
            .or_else(|| stats.get("inactive_file"))
    });
    usage.saturating_sub(cached.copied().unwrap_or_default())
}

fn cpu_percent(first: &ContainerStatsResponse, second: &ContainerStatsResponse) -> f64 {
    let times = |sample: &ContainerStatsResponse| {
        let cpu = sample.cpu_stats.as_ref()?;
        let own = cpu.cpu_usage.as_ref()?.total_usage?;
        Some((own, cpu.system_cpu_usage?, cpu.online_cpus.unwrap_or(1)))
    };
    let (Some((own, all, _)), Some((own_after, all_after, processors))) =
        (times(first), times(second))
    else {
        return 0.0;
    };
    let used = own_after.saturating_sub(own);
    let passed = all_after.saturating_sub(all);
    if passed == 0 {
        return 0.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds within a second are far below 2^52"
    )]
    let share = used as f64 / passed as f64;
    share * f64::from(processors) * 100.0
}
