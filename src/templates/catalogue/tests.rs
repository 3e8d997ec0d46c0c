use std::{fs, path::Path};

use futures_util::future::join_all;

use super::*;
use crate::{cache, lifecycle::Tasks, store::memory::MemoryStore};

struct Users {
    directory: tempfile::TempDir,
    catalogue: Catalogue,
    cache: Arc<Cache<Files>>,
}

const MINUTE: Duration = Duration::from_secs(60);

fn catalogue(directories: Vec<PathBuf>) -> (Catalogue, Arc<Cache<Files>>) {
    let store = Arc::new(MemoryStore::new());
    let cache = Cache::new(store, cache::Settings::default(), Tasks::new());
    let durations = Durations {
        fresh: 60 * MINUTE,
        stale: MINUTE,
        max_stale: 120 * MINUTE,
    };
    let catalogue = Catalogue::new(directories, durations, Arc::clone(&cache));
    (catalogue, cache)
}

impl Users {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (catalogue, cache) = catalogue(vec![directory.path().to_owned()]);
        Self {
            directory,
            catalogue,
            cache,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name).join("template.json")
    }

    fn write(&self, name: &str, text: &str) {
        put(self.directory.path(), name, text);
    }

    /// The next look at the directories.
    async fn next_look(&self) {
        tokio::time::sleep(LOOK_EVERY).await;
    }

    async fn all(&self) -> Arc<Known> {
        self.catalogue.all().await.expect("templates")
    }
}

fn put(directory: &Path, name: &str, text: &str) {
    let directory = directory.join(name);
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("template.json"), text).expect("a file");
}

fn image(version: u32) -> String {
    format!(r#"{{"docker_image": "x/y:{version}"}}"#)
}

#[tokio::test]
async fn without_directories_there_are_the_built_in_ones() {
    let (catalogue, _) = catalogue(Vec::new());
    let known = catalogue.all().await.expect("templates");
    assert_eq!(known.templates.len(), 10);
    assert_eq!(known.get("demo").expect("demo").origin, Origin::BuiltIn);
}

#[tokio::test]
async fn what_is_added_changed_and_removed_is_seen_at_the_next_look() {
    let users = Users::new();
    assert_eq!(users.all().await.templates.len(), 10);
    users.write("mine", &image(1));
    users.next_look().await;
    assert_eq!(
        users.catalogue.get("mine").await.expect("mine").image,
        "x/y:1"
    );
    // The same size; the times differ by as little as the file system tells.
    users.write("mine", &image(2));
    users.next_look().await;
    assert_eq!(
        users.catalogue.get("mine").await.expect("mine").image,
        "x/y:2"
    );
    fs::remove_dir_all(users.directory.path().join("mine")).expect("removed");
    users.next_look().await;
    let error = users.catalogue.get("mine").await.expect_err("gone");
    assert!(matches!(error, TemplateError::Unknown { .. }), "{error}");
}

#[tokio::test]
async fn a_template_is_compiled_once_until_its_text_changes() {
    let users = Users::new();
    users.write("one", &image(1));
    users.write("two", &image(1));
    let before = users.all().await;
    assert!(Arc::ptr_eq(
        &before.get("one").expect("one"),
        &users.catalogue.get("one").await.expect("one")
    ));
    users.write("two", &image(2));
    users.next_look().await;
    let after = users.all().await;
    let same = |name| {
        Arc::ptr_eq(
            &before.get(name).expect(name),
            &after.get(name).expect(name),
        )
    };
    assert!(same("one") && same("demo") && !same("two"));
}

#[tokio::test]
async fn many_callers_cause_one_reading() {
    let users = Users::new();
    for number in 0..20 {
        users.write(&format!("number-{number}"), &image(number));
    }
    let known = join_all((0..50).map(|_| users.all())).await;
    assert!(known.iter().all(|one| Arc::ptr_eq(one, &known[0])));
    assert_eq!(known[0].templates.len(), 30);
    assert_eq!(users.cache.counters().refreshed.get(), 1);
}

#[tokio::test]
async fn a_broken_template_is_told_with_file_and_line_and_hides_no_other() {
    let users = Users::new();
    users.write("good", &image(1));
    users.write("bad", "{\n  \"docker_image\": 5\n}");
    users.write("time", "{");
    users.write("not a name", &image(1));
    fs::create_dir_all(users.directory.path().join("no-template")).expect("a directory");
    let known = users.all().await;
    assert!(known.get("good").is_ok() && known.get("demo").is_ok());
    let broken: Vec<_> = known
        .broken
        .iter()
        .map(|broken| broken.name.as_str())
        .collect();
    assert_eq!(broken, ["bad", "not a name", "time"]);
    let error = known.get("bad").expect_err("broken").to_string();
    let place = format!(
        "{}:2:19: docker_image: expected a text",
        users.path("bad").display()
    );
    assert!(error.contains(&place), "{error}");
    // The built-in one of that name is not what its owner meant.
    let error = known.get("time").expect_err("broken");
    assert!(matches!(error, TemplateError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn the_first_directory_wins_and_one_that_is_missing_is_told() {
    let (first, second) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    put(first.path(), "same", &image(1));
    put(second.path(), "same", &image(2));
    put(second.path(), "demo", &image(3));
    let missing = first.path().join("missing");
    let directories = vec![
        first.path().to_owned(),
        missing.clone(),
        second.path().to_owned(),
    ];
    let (catalogue, _) = catalogue(directories);
    let known = catalogue.all().await.expect("templates");
    assert_eq!(known.get("same").expect("same").image, "x/y:1");
    assert_eq!(known.get("demo").expect("demo").image, "x/y:3");
    assert_eq!(known.broken[0].name, missing.display().to_string());
    assert!(
        known.broken[0].findings[0]
            .message
            .contains("templates.directories")
    );
}

#[tokio::test]
async fn an_unknown_name_leads_to_those_that_were_meant() {
    let (catalogue, _) = catalogue(Vec::new());
    let told = |error: TemplateError| error.to_string();
    let error = catalogue.get("filesytem").await.expect_err("a typo");
    assert!(told(error).contains("did you mean \"filesystem\"?"));
    let error = catalogue.get("github-server").await.expect_err("too long");
    assert!(told(error).contains("did you mean one of github, git?"));
    let error = catalogue
        .get("../../etc/passwd")
        .await
        .expect_err("no name");
    assert!(told(error).starts_with("there is no template \"../../etc/passwd\""));
    let error = catalogue.get("zzz").await.expect_err("nothing like it");
    assert!(told(error).contains("there are demo, everything"));
}
