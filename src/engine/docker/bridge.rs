//! Bringing the bridge into containers: a volume named by the program's
//! digest, filled once through a container that is never started, and mounted
//! read-only by all that need it.
//!
//! Uploading into a container with a read-only root is refused, images without
//! a shell could not copy it, and mounting it from the engine's machine would
//! need the file there: a volume needs none of that.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bollard::{
    models::{ContainerCreateBody, HostConfig, VolumeCreateRequest},
    query_parameters::{
        CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder,
        UploadToContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep};

use super::{
    Cause, Docker, EngineError, Operation,
    body::bridge_mount,
    call::{About, locked, one_line},
    elf, labels,
};
use crate::{engine::ResolvedImage, ids::hex};

/// Where the volume is mounted.
pub(super) const DIRECTORY: &str = "/.mcp-fleet";
/// The program's name in it, and beside this program.
pub(super) const PROGRAM: &str = "mcp-fleet-bridge";

/// A node that fills the volume needs seconds; after this it is taken for dead.
const FILLING: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// What was found to be in place. The volume may be removed and made anew
/// behind our back: when it was made tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivered {
    file: FileState,
    digest: String,
    volume: Option<(String, Option<String>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileState {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
}

/// The bridge program.
struct Bridge {
    file: FileState,
    content: Bytes,
    digest: String,
}

impl Docker {
    /// A volume with the bridge in it, filled when it is not there. `image`:
    /// any image of this engine; nothing of it is run.
    ///
    /// # Errors
    /// When the program is missing or unfit for the image, or the engine does
    /// not answer.
    pub async fn ensure_bridge(
        &self,
        fleet: &str,
        image: &ResolvedImage,
    ) -> Result<String, EngineError> {
        let path = self.bridge_path();
        let unfit = |problem: String| {
            let about = About::image(Operation::DeliverBridge, &image.id);
            let path = path.display().to_string();
            about.error(Cause::Bridge { path, problem })
        };
        let file = file_state(&path).await.map_err(unfit)?;
        // Many deployments at once need the same volume: one fills it.
        let _one_at_a_time = self.delivering.lock().await;
        if let Some(volume) = self.still_there(fleet, &file).await? {
            return Ok(volume);
        }
        let bridge = Bridge::read(file, &image.platform).await.map_err(unfit)?;
        let volume = volume_name(fleet, &bridge.digest);
        self.make_volume(fleet, &volume).await?;
        self.fill(fleet, &volume, image, &bridge).await?;
        let made = self.volume_made(&volume).await?;
        *locked(&self.delivered) = Some(Delivered {
            file: bridge.file,
            digest: bridge.digest,
            volume: Some((volume.clone(), made)),
        });
        Ok(volume)
    }

    /// Where the bridge program is looked for.
    #[must_use]
    pub fn bridge_path(&self) -> PathBuf {
        bridge_path(self.settings.bridge.as_deref())
    }

    /// The volume, when it was found in order before and nothing changed.
    async fn still_there(
        &self,
        fleet: &str,
        file: &FileState,
    ) -> Result<Option<String>, EngineError> {
        let known = locked(&self.delivered).clone();
        let Some(known) = known.filter(|known| known.file == *file) else {
            return Ok(None);
        };
        let volume = volume_name(fleet, &known.digest);
        match known.volume {
            Some((name, made)) if name == volume => {
                let now = self.volume_made(&volume).await?;
                Ok((now.is_some() && now == made).then_some(volume))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// When the volume was made; `None` when there is none.
    async fn volume_made(&self, volume: &str) -> Result<Option<String>, EngineError> {
        let about = About::volume(Operation::Inspect, volume);
        let name = volume.to_owned();
        let inspect = async move |client: bollard::Docker| client.inspect_volume(&name).await;
        match self.ask(&about, inspect).await {
            Ok(found) => Ok(Some(found.created_at.unwrap_or_default())),
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the volume; one that is there stays as it is.
    async fn make_volume(&self, fleet: &str, volume: &str) -> Result<(), EngineError> {
        let about = About::volume(Operation::Create, volume);
        let request = VolumeCreateRequest {
            name: Some(volume.to_owned()),
            labels: Some(helper_labels(fleet).into()),
            ..VolumeCreateRequest::default()
        };
        let create = async |client: bollard::Docker| client.create_volume(request).await;
        self.ask(&about, create).await.map(drop)
    }

    /// Puts the program in unless it is there, whole. One node at a time.
    async fn fill(
        &self,
        fleet: &str,
        volume: &str,
        image: &ResolvedImage,
        bridge: &Bridge,
    ) -> Result<(), EngineError> {
        let helper = format!("{volume}-fill");
        let deadline = Instant::now() + FILLING;
        while !self.make_helper(fleet, &helper, volume, image).await? {
            if Instant::now() >= deadline {
                tracing::warn!(
                    container = helper,
                    "whoever fills a volume is late: taking over"
                );
                self.remove(&helper).await?;
            }
            sleep(LOOK).await;
        }
        let filled = self.fill_through(&helper, volume, bridge).await;
        let removed = self.remove(&helper).await;
        filled.and(removed)
    }

    /// Whether the helper could be made: not while another node has one.
    async fn make_helper(
        &self,
        fleet: &str,
        helper: &str,
        volume: &str,
        image: &ResolvedImage,
    ) -> Result<bool, EngineError> {
        let about = About::volume(Operation::DeliverBridge, volume);
        let body = ContainerCreateBody {
            image: Some(image.id.clone()),
            entrypoint: Some(vec![format!("{DIRECTORY}/{PROGRAM}")]),
            labels: Some(helper_labels(fleet).into()),
            host_config: Some(HostConfig {
                mounts: Some(vec![bridge_mount(volume)]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(helper).build();
        let create =
            async |client: bollard::Docker| client.create_container(Some(options), body).await;
        match self.ask(&about, create).await {
            Ok(_) => Ok(true),
            Err(EngineError {
                cause: Cause::Engine { status: 409, .. },
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn fill_through(
        &self,
        helper: &str,
        volume: &str,
        bridge: &Bridge,
    ) -> Result<(), EngineError> {
        if self.digest_in(helper, volume).await?.as_ref() == Some(&bridge.digest) {
            return Ok(());
        }
        let about = About::volume(Operation::DeliverBridge, volume);
        let broken = |why: String| about.error(Cause::Answer { why });
        let packed = pack(&bridge.content).map_err(|error| broken(error.to_string()))?;
        let options = UploadToContainerOptionsBuilder::new()
            .path(DIRECTORY)
            .build();
        let name = helper.to_owned();
        let upload = async move |client: bollard::Docker| {
            let packed = bollard::body_full(packed);
            client
                .upload_to_container(&name, Some(options), packed)
                .await
        };
        self.ask(&about, upload).await?;
        match self.digest_in(helper, volume).await? {
            Some(digest) if digest == bridge.digest => Ok(()),
            Some(_) | None => Err(broken("what was uploaded is not what is there".to_owned())),
        }
    }

    /// Digest of the program in the volume.
    async fn digest_in(&self, helper: &str, volume: &str) -> Result<Option<String>, EngineError> {
        let about = About::volume(Operation::DeliverBridge, volume);
        let options = DownloadFromContainerOptionsBuilder::new()
            .path(&format!("{DIRECTORY}/{PROGRAM}"))
            .build();
        let name = helper.to_owned();
        let download = async move |client: bollard::Docker| {
            let mut parts = client.download_from_container(&name, Some(options));
            let mut all = Vec::new();
            while let Some(part) = parts.try_next().await? {
                all.extend_from_slice(&part);
            }
            Ok(all)
        };
        match self.ask(&about, download).await {
            Ok(packed) => Ok(unpacked_digest(&packed)),
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where the bridge program is: as configured, else beside this program.
#[must_use]
pub fn bridge_path(configured: Option<&Path>) -> PathBuf {
    if let Some(path) = configured {
        return path.to_owned();
    }
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name(PROGRAM)
}

impl Bridge {
    /// Reads the program and makes sure that it runs in any image of `platform`.
    async fn read(file: FileState, platform: &str) -> Result<Self, String> {
        let content = tokio::fs::read(&file.path)
            .await
            .map_err(|error| format!("cannot be read: {error}"))?;
        let program = elf::program(&content).ok_or("is no 64-bit Linux program")?;
        if !program.is_static {
            return Err("is not linked statically, so it runs in few images".to_owned());
        }
        let wanted = platform.rsplit('/').next().unwrap_or_default();
        if let Some(architecture) = program.architecture
            && !wanted.is_empty()
            && architecture != wanted
        {
            let problem = format!("is for {architecture}, the image for {wanted}");
            return Err(one_line(&problem));
        }
        Ok(Self {
            file,
            digest: hex(&Sha256::digest(&content)),
            content: content.into(),
        })
    }
}

async fn file_state(path: &Path) -> Result<FileState, String> {
    let found = tokio::fs::metadata(path)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "is not there".to_owned(),
            _ => format!("cannot be read: {error}"),
        })?;
    Ok(FileState {
        path: path.to_owned(),
        length: found.len(),
        modified: found.modified().ok(),
    })
}

fn volume_name(fleet: &str, digest: &str) -> String {
    let digest = digest.get(..12).unwrap_or(digest);
    format!("mcp-fleet-{fleet}-bridge-{digest}")
}

pub(super) fn helper_labels(fleet: &str) -> [(String, String); 2] {
    [(labels::FLEET, fleet), (labels::HELPER, "bridge")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// The program as the one file of an archive.
fn pack(content: &[u8]) -> std::io::Result<Bytes> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(Vec::with_capacity(content.len() + 4096));
    archive.append_data(&mut header, PROGRAM, content)?;
    archive.into_inner().map(Bytes::from)
}

fn unpacked_digest(packed: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(packed);
    let mut file = archive.entries().ok()?.next()?.ok()?;
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut content).ok()?;
    Some(hex(&Sha256::digest(&content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_what_is_unpacked() {
        let content = vec![7; 100_000];
        let packed = pack(&content).expect("an archive");
        let digest = hex(&Sha256::digest(&content));
        assert_eq!(unpacked_digest(&packed), Some(digest.clone()));
        assert_ne!(unpacked_digest(&packed[..50_000]), Some(digest));
        assert_eq!(unpacked_digest(b""), None);
    }

    #[tokio::test]
    async fn a_program_that_would_not_run_everywhere_is_refused() {
        let own = std::env::current_exe().expect("a program");
        let file = file_state(&own).await.expect("there");
        let refused = Bridge::read(file, "linux/amd64").await;
        let problem = refused.err().expect("it is dynamic");
        assert!(problem.contains("statically"), "{problem}");
        let missing = file_state(Path::new("/nowhere/bridge")).await;
        assert_eq!(missing.expect_err("missing"), "is not there");
    }
}
