//! The users' directories: whether anything changed, and what is in them.
//! Blocks on the file system; callers keep it off the async threads.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::hex;

/// The name of the file in each template's directory.
pub(super) const FILE: &str = "template.json";
/// Bytes of a template.
const LARGEST: u64 = 1 << 20;
/// Templates in one directory.
const MOST: usize = 1000;
/// File systems count time in steps: two writes may share one. What was
/// written so lately is looked at once more when it is older.
const UNSETTLED: Duration = Duration::from_secs(1);

/// Changes whenever a template is added, removed or written: names, sizes,
/// times and numbers of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State([u8; 16]);

impl State {
    /// For the key of the cache.
    pub(super) fn to_text(self) -> String {
        hex(&self.0)
    }
}

/// Everything that was read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Texts {
    /// The files, an earlier directory's first.
    pub(super) files: Vec<Text>,
    /// Directories that could not be read, and why.
    pub(super) unread: Vec<(String, String)>,
}

/// One `template.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Text {
    /// The name of its directory.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: String,
    /// Its content, or why it could not be read.
    pub(super) content: Result<String, String>,
}

/// Looks at names, times and sizes; reads nothing.
pub(super) fn look(directories: &[PathBuf]) -> State {
    look_at(directories, wall_clock())
}

fn look_at(directories: &[PathBuf], now: SystemTime) -> State {
    let mut digest = Sha256::new();
    let mut latest = 0;
    for directory in directories {
        digest.update(directory.as_os_str().as_encoded_bytes());
        match entries(directory) {
            Err(error) => digest.update(error.kind().to_string()),
            Ok(entries) => {
                for (name, path) in entries {
                    digest.update([0]);
                    digest.update(name);
                    if let Ok(about) = fs::metadata(path) {
                        latest = latest.max(about.ctime());
                        for number in [
                            about.len().cast_signed(),
                            about.mtime(),
                            about.mtime_nsec(),
                            // A file put in its place with the times of the old one.
                            about.ctime(),
                            about.ctime_nsec(),
                            about.ino().cast_signed(),
                        ] {
                            digest.update(number.to_le_bytes());
                        }
                    }
                }
            }
        }
        digest.update([0xff]);
    }
    let settled = UNIX_EPOCH + Duration::from_secs(latest.unsigned_abs()) + UNSETTLED;
    digest.update([u8::from(now <= settled)]);
    let mut state = [0; 16];
    state.copy_from_slice(&digest.finalize()[..16]);
    State(state)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock that files are stamped by"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Reads all templates.
pub(super) fn read(directories: &[PathBuf]) -> Texts {
    let mut texts = Texts::default();
    for directory in directories {
        match entries(directory) {
            Err(error) => {
                let place = directory.display().to_string();
                let cure = format!(
                    "cannot be read ({error}): make the directory, or take it out of \
                     templates.directories"
                );
                texts.unread.push((place, cure));
            }
            Ok(entries) => {
                let files = entries.into_iter().map(|(name, path)| Text {
                    content: content(&path),
                    path: path.display().to_string(),
                    name,
                });
                texts.files.extend(files);
            }
        }
    }
    texts
}

/// Names and files of a directory's templates, by name. Hidden directories
/// and those without the file are none.
fn entries(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path().join(FILE);
        if !name.starts_with('.') && path.exists() {
            found.push((name, path));
        }
    }
    found.sort();
    if found.len() > MOST {
        let message = format!("it has more than {MOST} templates");
        return Err(io::Error::other(message));
    }
    Ok(found)
}

fn content(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map(|about| about.len());
    match size {
        Ok(size) if size > LARGEST => Err(format!("is longer than {} KiB", LARGEST >> 10)),
        Ok(_) => fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}")),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_written_is_looked_at_once_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("one");
        fs::create_dir(&path).expect("a directory");
        fs::write(path.join(FILE), "{}").expect("a file");
        let directories = [directory.path().to_owned()];
        let now = wall_clock();
        let after = |seconds| look_at(&directories, now + Duration::from_secs(seconds));
        assert_eq!(after(0), after(0));
        assert_ne!(after(0), after(5));
        assert_eq!(after(5), after(500));
        fs::write(path.join(FILE), "[]").expect("a file");
        assert_ne!(after(0), after(500));
    }

    #[test]
    fn a_template_that_is_too_long_is_not_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("long");
        fs::create_dir(&path).expect("a directory");
        let file = fs::File::create(path.join(FILE)).expect("a file");
        file.set_len(LARGEST + 1).expect("a length");
        let texts = read(&[directory.path().to_owned()]);
        assert!(
            texts.files[0]
                .content
                .as_ref()
                .is_err_and(|why| why.contains("1024 KiB"))
        );
    }
}
