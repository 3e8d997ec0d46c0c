//! Images: whether one is there, and pulling it once however many ask.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bollard::{
    models::{CreateImageInfo, ImageInspect},
    query_parameters::CreateImageOptionsBuilder,
};
use futures_util::{
    FutureExt as _, TryStreamExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::sync::watch;

use super::{
    Cause, Docker, EngineError, Operation,
    call::{About, locked},
};
use crate::engine::{PullProgress, ResolvedImage};

type Pull = BoxFuture<'static, Result<(), EngineError>>;

/// Pulls that run, by image. They run as long as somebody waits for them.
#[derive(Default)]
pub(super) struct Pulls(Mutex<HashMap<String, Running>>);

struct Running {
    pull: WeakShared<Pull>,
    progress: watch::Receiver<PullProgress>,
}

impl Docker {
    /// The image, pulled when it is not there. However many ask for it, it is
    /// pulled once; all of them hear of its progress.
    ///
    /// # Errors
    /// When the engine does not answer or the registry does not give it.
    pub async fn ensure_image(
        self: &Arc<Self>,
        image: &str,
        progress: impl Fn(PullProgress) + Send + Sync,
    ) -> Result<ResolvedImage, EngineError> {
        match self.local_image(image).await {
            Err(error) if error.cause == Cause::NotFound => {}
            found => return found,
        }
        let mirrored = mirrored(image, self.settings.registry_mirror.as_deref());
        let name = mirrored.as_deref().unwrap_or(image);
        self.pull_once(name, progress).await?;
        let about = About::image(Operation::Inspect, image);
        self.present(name)
            .await?
            .ok_or_else(|| about.error(Cause::NotFound))
    }

    /// The image that was found once, whatever its name stands for by now: by
    /// its id, or pulled by its digest. `None`: it cannot be had any more.
    ///
    /// # Errors
    /// When the engine or the registry does not answer.
    pub async fn ensure_same(
        self: &Arc<Self>,
        id: &str,
        digest: Option<&str>,
        progress: impl Fn(PullProgress) + Send + Sync,
    ) -> Result<Option<ResolvedImage>, EngineError> {
        if let Some(present) = self.present(id).await? {
            return Ok(Some(present));
        }
        let Some(digest) = digest else {
            return Ok(None);
        };
        match self.ensure_image(digest, progress).await {
            Ok(image) => Ok(Some(image)),
            Err(EngineError {
                cause: Cause::ImageRefused { .. } | Cause::NotFound,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The image, if it is there: nothing is pulled.
    ///
    /// # Errors
    /// When the engine does not answer or does not have it.
    pub async fn local_image(&self, image: &str) -> Result<ResolvedImage, EngineError> {
        if let Some(present) = self.present(image).await? {
            return Ok(present);
        }
        let mirrored = mirrored(image, self.settings.registry_mirror.as_deref());
        if let Some(mirrored) = mirrored
            && let Some(present) = self.present(&mirrored).await?
        {
            return Ok(present);
        }
        Err(About::image(Operation::Inspect, image).error(Cause::NotFound))
    }

    async fn present(&self, name: &str) -> Result<Option<ResolvedImage>, EngineError> {
        let about = About::image(Operation::Inspect, name);
        let named = name.to_owned();
        let inspect = async move |client: bollard::Docker| client.inspect_image(&named).await;
        match self.ask(&about, inspect).await {
            Ok(found) => Ok(Some(resolved(found))),
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull_once(
        self: &Arc<Self>,
        name: &str,
        progress: impl Fn(PullProgress) + Send + Sync,
    ) -> Result<(), EngineError> {
        let (mut pull, mut steps) = self.join_pull(name);
        // It may wait for its turn, or for the registry's first word.
        let step = *steps.borrow_and_update();
        progress(step);
        loop {
            tokio::select! {
                // The end outranks what is left to be told.
                biased;
                outcome = &mut pull => return outcome,
                changed = steps.changed() => match changed {
                    Ok(()) => {
                        let step = *steps.borrow_and_update();
                        progress(step);
                    }
                    // It is over, and says so at once.
                    Err(_) => return pull.await,
                },
            }
        }
    }

    /// The pull of this image that runs, else a new one.
    fn join_pull(self: &Arc<Self>, name: &str) -> (Shared<Pull>, watch::Receiver<PullProgress>) {
        let mut running = locked(&self.pulls.0);
        running.retain(|_, running| running.pull.upgrade().is_some());
        if let Some(joined) = running.get(name)
            && let Some(pull) = joined.pull.upgrade()
        {
            return (pull, joined.progress.clone());
        }
        let (tell, progress) = watch::channel(PullProgress::default());
        let (docker, image) = (Arc::clone(self), name.to_owned());
        let pull: Pull = async move { docker.pull(&image, tell).await }.boxed();
        let pull = pull.shared();
        if let Some(weak) = pull.downgrade() {
            let progress = progress.clone();
            running.insert(
                name.to_owned(),
                Running {
                    pull: weak,
                    progress,
                },
            );
        }
        (pull, progress)
    }

    async fn pull(&self, name: &str, tell: watch::Sender<PullProgress>) -> Result<(), EngineError> {
        let about = About::image(Operation::Pull, name);
        let _turn = self.pull_turns.acquire().await;
        let (repository, tag) = split(name);
        let options = CreateImageOptionsBuilder::new()
            .from_image(repository)
            .tag(tag)
            .build();
        tracing::info!(image = name, "an image is pulled");
        let pull = async move |client: bollard::Docker| {
            let mut layers = Layers::default();
            let mut steps = client.create_image(Some(options), None, None);
            while let Some(step) = steps.try_next().await? {
                layers.note(step);
                tell.send_replace(layers.progress());
            }
            Ok(())
        };
        let limit = self.settings.pull_timeout;
        self.bounded(limit, &about, pull)
            .await
            .map_err(|error| refused(error, name))
    }
}

/// What the engine's answer to a pull means.
fn refused(error: EngineError, name: &str) -> EngineError {
    let from = format!("the registry {}", registry(name).unwrap_or("docker.io"));
    let is_away = |said: &str| {
        let signs = [
            "dial tcp",
            "no such host",
            "i/o timeout",
            "connection refused",
            "tls handshake",
            "context deadline exceeded",
            "request canceled",
            "eof",
            "connection reset",
            "server misbehaving",
        ];
        let said = said.to_lowercase();
        signs.iter().any(|sign| said.contains(sign))
    };
    let cause = match error.cause {
        Cause::Engine { why, .. } if is_away(&why) => Cause::RegistryUnreachable { from, why },
        Cause::Engine { why, .. } | Cause::Invalid { why } => Cause::ImageRefused { from, why },
        Cause::NotFound => Cause::ImageRefused {
            from,
            why: "it knows no such image, or not for us".to_owned(),
        },
        cause => cause,
    };
    EngineError { cause, ..error }
}

fn resolved(found: ImageInspect) -> ResolvedImage {
    let config = found.config.unwrap_or_default();
    let (os, architecture) = (found.os, found.architecture);
    ResolvedImage {
        id: found.id.unwrap_or_default(),
        digest: found
            .repo_digests
            .and_then(|digests| digests.into_iter().next()),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        platform: format!(
            "{}/{}",
            os.unwrap_or_default(),
            architecture.unwrap_or_default()
        ),
    }
}

/// The registry an image's name begins with; `None`: the engine's default one.
fn registry(name: &str) -> Option<&str> {
    let (first, _) = name.split_once('/')?;
    let is_host = first.contains(['.', ':']) || first == "localhost";
    is_host.then_some(first)
}

/// The image's name at the mirror, when it is to be pulled from there.
fn mirrored(name: &str, mirror: Option<&str>) -> Option<String> {
    let mirror = mirror?;
    if registry(name).is_some() {
        return None;
    }
    let host = mirror
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    // As the default registry files images without a namespace.
    let namespace = if name.contains('/') { "" } else { "library/" };
    Some(format!("{host}/{namespace}{name}"))
}

/// Repository, and tag or digest. Without a tag an engine pulls all there are.
fn split(name: &str) -> (&str, &str) {
    if let Some(parts) = name.split_once('@') {
        return parts;
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    }
}

/// The layers of an image that is being pulled.
#[derive(Debug, Default)]
struct Layers(HashMap<String, Layer>);

#[derive(Debug, Default)]
struct Layer {
    bytes: u64,
    total: u64,
    is_done: bool,
}

impl Layers {
    fn note(&mut self, step: CreateImageInfo) {
        let (Some(id), Some(status)) = (step.id, step.status) else {
            return;
        };
        let known = self.0.contains_key(&id);
        let is_layer = matches!(
            status.as_str(),
            "Pulling fs layer" | "Waiting" | "Downloading" | "Already exists"
        );
        // The first step bears the tag for an id.
        if !known && !is_layer {
            return;
        }
        let layer = self.0.entry(id).or_default();
        let sizes = step.progress_detail.unwrap_or_default();
        match status.as_str() {
            "Downloading" => {
                let size = |size: Option<i64>| size.and_then(|size| u64::try_from(size).ok());
                layer.bytes = size(sizes.current).unwrap_or(layer.bytes);
                layer.total = size(sizes.total).unwrap_or(layer.total);
            }
            "Download complete" => layer.bytes = layer.total,
            "Pull complete" | "Already exists" => {
                layer.bytes = layer.total;
                layer.is_done = true;
            }
            _ => {}
        }
    }

    fn progress(&self) -> PullProgress {
        let layers = self.0.values();
        PullProgress {
            layers: self.0.len(),
            done: layers.clone().filter(|layer| layer.is_done).count(),
            bytes: layers.clone().map(|layer| layer.bytes).sum(),
            total: layers.map(|layer| layer.total).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_a_registry_come_from_the_mirror() {
        let at = |name| mirrored(name, Some("https://mirror.local:5000/"));
        let is = |name: &str| Some(format!("mirror.local:5000/{name}"));
        assert_eq!(at("python:3.12"), is("library/python:3.12"));
        assert_eq!(at("mcp/time"), is("mcp/time"));
        assert_eq!(at("a@sha256:ab"), is("library/a@sha256:ab"));
        assert_eq!(at("ghcr.io/a/b:1"), None);
        assert_eq!(at("localhost/b"), None);
        assert_eq!(at("host:5000/b"), None);
        assert_eq!(mirrored("python", None), None);
    }

    #[test]
    fn a_name_without_a_tag_means_the_latest() {
        assert_eq!(split("python"), ("python", "latest"));
        assert_eq!(split("python:3"), ("python", "3"));
        assert_eq!(split("host:5000/python"), ("host:5000/python", "latest"));
        assert_eq!(split("host:5000/a:1"), ("host:5000/a", "1"));
        assert_eq!(split("a/b@sha256:cd"), ("a/b", "sha256:cd"));
    }

    #[test]
    fn progress_counts_layers_and_not_the_tag() {
        let step = |id: &str, status: &str, sizes: Option<(i64, i64)>| CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: sizes.map(|(current, total)| bollard::models::ProgressDetail {
                current: Some(current),
                total: Some(total),
            }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        layers.note(step("latest", "Pulling from library/python", None));
        assert_eq!(layers.progress(), PullProgress::default());
        layers.note(step("a", "Already exists", None));
        layers.note(step("b", "Pulling fs layer", None));
        layers.note(step("b", "Downloading", Some((10, 30))));
        let expected = PullProgress {
            layers: 2,
            done: 1,
            bytes: 10,
            total: 30,
        };
        assert_eq!(layers.progress(), expected);
        layers.note(step("b", "Pull complete", None));
        let expected = PullProgress {
            layers: 2,
            done: 2,
            bytes: 30,
            total: 30,
        };
        assert_eq!(layers.progress(), expected);
    }

    #[test]
    fn a_registry_that_is_away_is_told_from_one_that_refuses() {
        let refusal = |cause| {
            let about = About::image(Operation::Pull, "a/b:1");
            refused(about.error(cause), "a/b:1").cause
        };
        let engine = |why: &str| Cause::Engine {
            status: 500,
            why: why.into(),
        };
        let away = refusal(engine(
            "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup: no such host",
        ));
        assert!(matches!(away, Cause::RegistryUnreachable { .. }), "{away}");
        let refused = refusal(Cause::NotFound);
        assert!(matches!(refused, Cause::ImageRefused { .. }), "{refused}");
        let refused = refusal(engine("pull access denied for a/b"));
        assert!(matches!(refused, Cause::ImageRefused { .. }), "{refused}");
    }
}
