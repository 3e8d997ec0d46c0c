//! [`Catalogue`]: every template there is, as of now.
//!
//! Built-in templates are part of the program. Those of the users' directories
//! are looked at when somebody asks, at most every 200 ms, and read through
//! the shared cache: its key holds the state of the directories, so that a
//! change is never answered with what was before, and many callers cause one
//! reading. A template is compiled once, until its text changes.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout_at},
};

use super::{
    builtin,
    files::{self, State, Text, Texts},
    format,
    template::{Origin, Template, TextDigest},
};
use crate::{
    cache::{Cache, CacheError, CacheKey, Cacheable, Durations, Fetched, Scope},
    config::Finding,
    ids::{Principal, ServerId},
};

/// Time between two looks at the directories.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for the file system.
const PATIENCE: Duration = Duration::from_secs(5);
/// The method under which the cache knows the catalogue.
const METHOD: &str = "templates/files";

/// Every template there is.
#[derive(Debug)]
pub struct Catalogue {
    directories: Arc<[PathBuf]>,
    durations: Durations,
    cache: Arc<Cache<Files>>,
    looking: Mutex<Looking>,
    known: ArcSwap<Known>,
    reading: Mutex<()>,
}

/// What the cache keeps: the files' texts.
#[derive(Debug)]
pub struct Files(Texts);

/// The templates at one time.
#[derive(Debug, Default)]
pub struct Known {
    /// Those that can be used, by name.
    pub templates: BTreeMap<ServerId, Arc<Template>>,
    /// Those that cannot, and directories that cannot be read.
    pub broken: Vec<Broken>,
    /// The digest of the texts they were read from.
    of: Option<u64>,
}

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its name, or the directory's.
    pub name: String,
    /// What is wrong, where, and what to do.
    pub findings: Vec<Finding>,
}

/// Why there is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is none of that name.
    #[error("{}", unknown_message(name, near, *known))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names that may have been meant; all when few.
        near: Vec<String>,
        /// How many templates there are.
        known: usize,
    },
    /// Its file is not what a template has to be.
    #[error("template {name} cannot be used: {}", told(findings))]
    Broken {
        /// Its name.
        name: String,
        /// What is wrong, where, and what to do.
        findings: Vec<Finding>,
    },
    /// The directories could not be read in time.
    #[error("the template directories could not be read: {why}")]
    Unavailable {
        /// Why.
        why: String,
    },
}

/// The last look at the directories, and the one under way.
#[derive(Debug, Default)]
struct Looking {
    last: Option<(Instant, State)>,
    /// Kept when nobody waits for it any more, so that a file system that
    /// hangs costs one thread and not one per request.
    running: Option<JoinHandle<State>>,
}

static BUILT_IN: LazyLock<BTreeMap<ServerId, Arc<Template>>> = LazyLock::new(builtin::templates);

impl Catalogue {
    /// The built-in templates and those of `directories`; an earlier
    /// directory's template hides a later one's and a built-in one of its name.
    #[must_use]
    pub fn new(
        directories: impl Into<Arc<[PathBuf]>>,
        durations: Durations,
        cache: Arc<Cache<Files>>,
    ) -> Self {
        Self {
            directories: directories.into(),
            durations,
            cache,
            looking: Mutex::default(),
            known: ArcSwap::from_pointee(Known {
                templates: BUILT_IN.clone(),
                ..Known::default()
            }),
            reading: Mutex::default(),
        }
    }

    /// The template of that name.
    ///
    /// # Errors
    /// When there is none, its file is wrong, or the directories cannot be read.
    pub async fn get(&self, name: &str) -> Result<Arc<Template>, TemplateError> {
        self.all().await?.get(name)
    }

    /// All templates as they are now.
    ///
    /// # Errors
    /// When the directories cannot be read in time.
    pub async fn all(&self) -> Result<Arc<Known>, TemplateError> {
        if self.directories.is_empty() {
            return Ok(self.known.load_full());
        }
        let deadline = Instant::now() + PATIENCE;
        let state = self.look(deadline).await?;
        let directories = Arc::clone(&self.directories);
        let fetch = Arc::new(move || {
            let directories = Arc::clone(&directories);
            let read = async move {
                spawn_blocking(move || fetched(&directories, state))
                    .await
                    .unwrap_or_else(|error| Err(unavailable(error)))
            };
            Box::pin(read) as _
        });
        let served = self
            .cache
            .get(&key(state), &self.durations, fetch, deadline)
            .await?;
        self.read(&served.value, served.digest).await
    }

    /// The state of the directories, at most 200 ms old.
    async fn look(&self, deadline: Instant) -> Result<State, TemplateError> {
        let mut looking = self.looking.lock().await;
        let now = Instant::now();
        if let Some((at, state)) = looking.last
            && now < at + LOOK_EVERY
        {
            return Ok(state);
        }
        let directories = Arc::clone(&self.directories);
        let running = looking
            .running
            .get_or_insert_with(|| spawn_blocking(move || files::look(&directories)));
        let looked = timeout_at(deadline, &mut *running)
            .await
            .map_err(|_| unavailable("the file system does not answer"))?;
        looking.running = None;
        let state = looked.map_err(unavailable)?;
        looking.last = Some((now, state));
        Ok(state)
    }

    /// The templates of these texts, read once.
    async fn read(&self, files: &Arc<Files>, digest: u64) -> Result<Arc<Known>, TemplateError> {
        let current = || Some(self.known.load_full()).filter(|known| known.of == Some(digest));
        if let Some(known) = current() {
            return Ok(known);
        }
        let _reading = self.reading.lock().await;
        if let Some(known) = current() {
            return Ok(known);
        }
        let (before, files) = (self.known.load_full(), Arc::clone(files));
        let known = spawn_blocking(move || Known::read(&files.0, &before, digest))
            .await
            .map_err(unavailable)?;
        let known = Arc::new(known);
        self.known.store(Arc::clone(&known));
        Ok(known)
    }
}

/// What cannot be used of these directories, now. Blocks on the file system.
#[must_use]
pub fn broken_in(directories: &[PathBuf]) -> Vec<Broken> {
    Known::read(&files::read(directories), &Known::default(), 0).broken
}

impl Known {
    /// The template of that name.
    ///
    /// # Errors
    /// When there is none, or its file is wrong.
    pub fn get(&self, name: &str) -> Result<Arc<Template>, TemplateError> {
        if let Some(broken) = self.broken.iter().find(|broken| broken.name == name) {
            return Err(TemplateError::Broken {
                name: name.to_owned(),
                findings: broken.findings.clone(),
            });
        }
        let found = ServerId::try_from(name).ok();
        let found = found.and_then(|name| self.templates.get(&name));
        found.cloned().ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> TemplateError {
        const FEW: usize = 12;
        let shown: String = name.chars().take(64).collect();
        let names: Vec<&str> = self.templates.keys().map(ServerId::as_str).collect();
        let wanted = shown.to_lowercase();
        let mut near: Vec<_> = names
            .iter()
            .map(|known| {
                (
                    strsim::normalized_damerau_levenshtein(&wanted, known),
                    *known,
                )
            })
            .filter(|(likeness, known)| *likeness >= 0.5 || wanted.contains(known))
            .collect();
        near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let near: Vec<_> = near.into_iter().map(|(_, known)| known).take(3).collect();
        let near = match near.is_empty() && names.len() <= FEW {
            true => names.clone(),
            false => near,
        };
        TemplateError::Unknown {
            name: shown,
            near: near.into_iter().map(str::to_owned).collect(),
            known: names.len(),
        }
    }

    /// Reads what is new of `texts`; what has not changed is as `before`.
    fn read(texts: &Texts, before: &Self, digest: u64) -> Self {
        let mut known = Self {
            templates: BUILT_IN.clone(),
            broken: Vec::new(),
            of: Some(digest),
        };
        for (directory, why) in &texts.unread {
            let finding = Finding {
                place: directory.clone(),
                key: String::new(),
                message: why.clone(),
            };
            known.broken.push(Broken {
                name: directory.clone(),
                findings: vec![finding],
            });
        }
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for file in &texts.files {
            if seen.contains_key(file.name.as_str()) {
                continue;
            }
            seen.insert(&file.name, &file.path);
            match one(file, before) {
                Ok(template) => {
                    known.templates.insert(template.name.clone(), template);
                }
                Err(findings) => {
                    // A built-in one of that name is not what was meant.
                    known.templates.retain(|name, _| name.as_str() != file.name);
                    known.broken.push(Broken {
                        name: file.name.clone(),
                        findings,
                    });
                }
            }
        }
        known
    }
}

fn one(file: &Text, before: &Known) -> Result<Arc<Template>, Vec<Finding>> {
    let finding = |message: String| {
        vec![Finding {
            place: file.path.clone(),
            key: String::new(),
            message,
        }]
    };
    let name = ServerId::try_from(file.name.as_str()).map_err(|_| {
        finding(format!(
            "the directory's name {:?} is the template's and cannot be a server's: use 1 to 32 \
             letters, digits, `_` or `-`",
            file.name
        ))
    })?;
    let text = file.content.as_ref().map_err(|why| finding(why.clone()))?;
    let origin = Origin::File(file.path.clone().into());
    let same = before.templates.get(&name);
    if let Some(same) =
        same.filter(|same| same.origin == origin && same.digest == TextDigest::of(text))
    {
        return Ok(Arc::clone(same));
    }
    format::read(&name, origin, &file.path, text).map(Arc::new)
}

fn key(state: State) -> CacheKey {
    #[expect(clippy::expect_used, reason = "a valid name, as the tests see")]
    static SERVER: LazyLock<ServerId> =
        LazyLock::new(|| ServerId::try_from("templates").expect("a valid name"));
    let variant = state.to_text();
    CacheKey::new(&SERVER, METHOD, None, &variant, Principal::ANONYMOUS)
}

/// Reads the directories. What was read while they changed is of no state.
fn fetched(directories: &[PathBuf], state: State) -> Result<Fetched, TemplateError> {
    let texts = files::read(directories);
    let payload = rmp_serde::to_vec(&(FORMAT, texts)).map_err(unavailable)?;
    Ok(Fetched {
        payload: payload.into(),
        ttl: None,
        scope: Scope::Public,
        storable: files::look(directories) == state,
        is_empty: false,
    })
}

/// The version of what the cache keeps.
const FORMAT: u8 = 1;

impl Cacheable for Files {
    type FetchError = TemplateError;

    fn decode(payload: &Bytes) -> Result<Self, String> {
        let (format, texts): (u8, Texts) =
            rmp_serde::from_slice(payload).map_err(|error| error.to_string())?;
        match format {
            FORMAT => Ok(Self(texts)),
            other => Err(format!("format {other} is not known")),
        }
    }

    fn weight(&self) -> u32 {
        let bytes: usize = self
            .0
            .files
            .iter()
            .map(|file| match &file.content {
                Ok(text) => text.len() + 200,
                Err(_) => 200,
            })
            .sum();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

fn unavailable(error: impl fmt::Display) -> TemplateError {
    TemplateError::Unavailable {
        why: error.to_string(),
    }
}

impl From<CacheError<Self>> for TemplateError {
    fn from(error: CacheError<Self>) -> Self {
        match error {
            CacheError::Fetch(error) => error,
            CacheError::TimedOut { .. }
            | CacheError::Unreadable { .. }
            | CacheError::Busy { .. } => unavailable(error),
        }
    }
}

fn unknown_message(name: &str, near: &[String], known: usize) -> String {
    let message = format!("there is no template {name:?}");
    match near {
        [] => format!("{message}; `mcp-fleet templates` lists the {known} there are"),
        [one] => format!("{message}; did you mean {one:?}?"),
        several if several.len() < known => {
            format!("{message}; did you mean one of {}?", several.join(", "))
        }
        all => format!("{message}; there are {}", all.join(", ")),
    }
}

fn told(findings: &[Finding]) -> String {
    let findings: Vec<_> = findings.iter().map(ToString::to_string).collect();
    findings.join("; ")
}

#[cfg(test)]
mod tests;
