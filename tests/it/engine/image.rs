//! Images come from a registry, once, and only when they are not there.

use std::{
    process::Child,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mcp_fleet::engine::{Cause, PullProgress, Settings};

use super::Fleet;
use crate::support::{dockerd::IMAGE, eventually};

/// A registry on the engine's machine.
struct Registry {
    child: Child,
    host: String,
    log: tempfile::NamedTempFile,
}

impl Registry {
    async fn start(fleet: &Fleet) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let port = rand::random_range(10_000..30_000_u16);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/registry.py");
        let child = fleet
            .engine
            .on_its_machine("python3")
            .args([script, &port.to_string()])
            .args([&*fleet.engine.workload(), log.path()])
            .spawn()
            .expect("python3 is installed");
        let registry = Self {
            child,
            host: format!("127.0.0.1:{port}"),
            log,
        };
        let url = format!("http://{}/v2/", registry.host);
        eventually("the registry listens", || async {
            let script = "import urllib.request, sys; urllib.request.urlopen(sys.argv[1])";
            let mut command = fleet.engine.on_its_machine("python3");
            let asked = command.args(["-c", script, &url]).output();
            asked.expect("python3").status.success()
        })
        .await;
        registry
    }

    /// How often this was asked for.
    fn asked(&self, part: &str) -> usize {
        let log = std::fs::read_to_string(self.log.path()).expect("a log");
        log.lines().filter(|line| line.contains(part)).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn an_image_is_pulled_once_however_many_ask_and_all_see_it_come() {
    let Some(fleet) = Fleet::new() else { return };
    let registry = Registry::start(&fleet).await;
    let image = format!("{}/slow/{}:1", registry.host, fleet.id);
    let steps: Vec<_> = (0..10).map(|_| Mutex::new(Vec::new())).collect();
    let asked = steps.iter().map(|steps| {
        fleet.docker.ensure_image(&image, |step: PullProgress| {
            steps.lock().expect("a lock").push(step);
        })
    });
    let found = futures_util::future::join_all(asked).await;
    let first = found[0].clone().expect("pulled");
    for each in found {
        assert_eq!(each, Ok(first.clone()));
    }
    assert_eq!(first.entrypoint, ["/workload"]);
    assert_eq!(first.command, ["wait"]);
    assert_eq!(first.platform, "linux/amd64");
    let repository = image.trim_end_matches(":1");
    let digest = first.digest.expect("a digest");
    assert!(
        digest.starts_with(&format!("{repository}@sha256:")),
        "{digest}"
    );
    for steps in steps {
        let steps = steps.into_inner().expect("a lock");
        assert!(steps.len() > 3, "{steps:?}");
        assert!(steps.is_sorted_by_key(|step| step.bytes), "{steps:?}");
        assert!(
            steps
                .iter()
                .any(|step| step.bytes > 0 && step.bytes < step.total)
        );
    }
    assert_eq!(
        registry.asked(&format!("GET /v2/slow/{}/blobs", fleet.id)),
        2
    );

    // By tag or by digest: what is there is not asked for again.
    let asked = registry.asked("/v2/slow");
    for name in [&image, &digest] {
        let again = fleet
            .docker
            .ensure_image(name, |_| {})
            .await
            .expect("there");
        assert_eq!(again.id, first.id);
    }
    assert_eq!(registry.asked("/v2/slow"), asked);
    fleet.engine.docker(&["rmi", "--force", &first.id]);
}

#[tokio::test]
async fn a_pull_goes_on_when_one_who_waits_goes_away() {
    let Some(fleet) = Fleet::new() else { return };
    let registry = Registry::start(&fleet).await;
    let image = format!("{}/slow/{}:1", registry.host, fleet.id);
    let ask = |steps: Arc<AtomicUsize>| {
        let (docker, image) = (Arc::clone(&fleet.docker), image.clone());
        tokio::spawn(async move {
            let count = move |_| {
                steps.fetch_add(1, Ordering::SeqCst);
            };
            docker.ensure_image(&image, count).await
        })
    };
    let (first_steps, second_steps) = (Arc::default(), Arc::default());
    let first = ask(Arc::clone(&first_steps));
    let second = ask(Arc::clone(&second_steps));
    for steps in [&first_steps, &second_steps] {
        eventually("both see it come", || async {
            steps.load(Ordering::SeqCst) > 0
        })
        .await;
    }
    first.abort();
    let found = second.await.expect("no panic").expect("pulled");
    assert_eq!(
        registry.asked(&format!("GET /v2/slow/{}/blobs", fleet.id)),
        2
    );
    fleet.engine.docker(&["rmi", "--force", &found.id]);
}

#[tokio::test]
async fn images_without_a_registry_come_from_the_mirror() {
    let Some(fleet) = Fleet::new() else { return };
    let registry = Registry::start(&fleet).await;
    let settings = Settings {
        registry_mirror: Some(format!("http://{}/", registry.host)),
        ..fleet.engine.settings()
    };
    let mirrored = Fleet::with(Arc::clone(&fleet.engine), settings);
    let image = format!("mirrored-{}", fleet.id);
    let found = mirrored
        .docker
        .ensure_image(&image, |_| {})
        .await
        .expect("pulled");
    let expected = format!("{}/library/{image}@sha256:", registry.host);
    assert!(found.digest.expect("a digest").starts_with(&expected));
    let asked = registry.asked("/manifests/");
    let again = mirrored
        .docker
        .ensure_image(&image, |_| {})
        .await
        .expect("there");
    assert_eq!(
        (again.id, registry.asked("/manifests/")),
        (found.id.clone(), asked)
    );
    // What is there needs no mirror.
    mirrored
        .docker
        .ensure_image(IMAGE, |_| {})
        .await
        .expect("there");
    assert_eq!(registry.asked("/manifests/"), asked);
    fleet.engine.docker(&["rmi", "--force", &found.id]);
}

#[tokio::test]
async fn what_a_registry_does_not_give_is_named_with_a_cure() {
    let Some(fleet) = Fleet::new() else { return };
    let registry = Registry::start(&fleet).await;
    let settings = Settings {
        pull_timeout: Duration::from_secs(2),
        ..fleet.engine.settings()
    };
    let fleet = Fleet::with(Arc::clone(&fleet.engine), settings);
    let failure = |repository: &str| {
        let image = format!("{}/{repository}:1", registry.host);
        let docker = Arc::clone(&fleet.docker);
        async move { docker.ensure_image(&image, |_| {}).await.expect_err("none") }
    };
    let missing = failure("missing/it").await;
    assert!(
        matches!(missing.cause, Cause::ImageRefused { .. }),
        "{missing}"
    );
    assert!(
        missing
            .to_string()
            .contains("/missing/it:1: the registry 127.0.0.1:"),
        "{missing}"
    );
    assert!(!missing.is_transient());
    let hung = failure("hung/it").await;
    assert!(matches!(hung.cause, Cause::TimedOut { .. }), "{hung}");
    assert!(
        hung.to_string().contains("engine.docker.pull_timeout"),
        "{hung}"
    );
    assert!(fleet.docker.availability().is_available());

    let nowhere = fleet
        .docker
        .ensure_image("127.0.0.1:9/nobody/there:1", |_| {})
        .await;
    let nowhere = nowhere.expect_err("nobody listens");
    assert!(
        matches!(nowhere.cause, Cause::RegistryUnreachable { .. }),
        "{nowhere}"
    );
    assert!(
        nowhere
            .to_string()
            .contains("engine.docker.registry_mirror"),
        "{nowhere}"
    );
}
