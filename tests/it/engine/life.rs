//! Containers come, end in every way, and go.

use std::time::{Duration, Instant};

use mcp_fleet::engine::{Cause, Created, State, Subject};

use super::{Fleet, texts, workload};
use crate::support::dockerd::IMAGE;

#[tokio::test]
async fn a_container_runs_is_stopped_and_leaves_nothing() {
    let Some(fleet) = Fleet::new() else { return };
    let name = fleet.run("life", &workload(&["wait"])).await;
    let running = fleet.inspect(&name).await;
    let State::Running { since } = running.state else {
        panic!("{running:?}");
    };
    assert!(since > 1_700_000_000 && running.created > 1_700_000_000);
    assert_eq!(running.name, name);
    let address = running.address.expect("an address");
    assert_eq!(address.port(), 9000);
    // Starting what runs is no error, nor is stopping what is stopped.
    fleet.docker.start(&name).await.expect("it runs");

    let before = Instant::now();
    let grace = Duration::from_secs(30);
    fleet.docker.stop(&name, grace).await.expect("stopped");
    assert!(
        before.elapsed() < Duration::from_secs(15),
        "it listens to SIGTERM"
    );
    fleet.docker.stop(&name, grace).await.expect("it is");
    let exit = fleet.ended(&name).await;
    assert!(exit.finished >= exit.started && exit.started == since);
    assert_eq!(fleet.inspect(&name).await.address, None);

    fleet.docker.restart(&name, grace).await.expect("again");
    assert!(matches!(
        fleet.inspect(&name).await.state,
        State::Running { .. }
    ));
    fleet.docker.remove(&name).await.expect("removed");
    fleet.docker.remove(&name).await.expect("nothing to remove");
    assert_eq!(fleet.docker.inspect(&name).await, Ok(None));
    fleet.docker.remove_unused(&fleet.id).await.expect("tidy");
    assert_eq!(fleet.left(), Vec::<String>::new());
}

#[tokio::test]
async fn who_does_not_listen_is_ended_after_its_grace() {
    let Some(fleet) = Fleet::new() else { return };
    let name = fleet.run("stubborn", &workload(&["stubborn"])).await;
    let before = Instant::now();
    let grace = Duration::from_secs(1);
    fleet.docker.stop(&name, grace).await.expect("stopped");
    let took = before.elapsed();
    assert!(took >= grace && took < Duration::from_secs(20), "{took:?}");
    let exit = fleet.ended(&name).await;
    assert_eq!((exit.code, exit.oom_killed), (137, false));
    assert_eq!(exit.to_string(), "was ended by signal 9");
}

#[tokio::test]
async fn a_server_that_ends_at_once_says_why() {
    let Some(fleet) = Fleet::new() else { return };
    let spec = workload(&["exit", "3", "reading settings", "no API key"]);
    let name = fleet.run("brief", &spec).await;
    let exit = fleet.ended(&name).await;
    assert_eq!(exit.to_string(), "ended with exit code 3");
    let lines = fleet.docker.last_lines(&name, 10).await.expect("lines");
    assert_eq!(texts(&lines), ["reading settings", "no API key"]);
    let last = fleet.docker.last_lines(&name, 1).await.expect("lines");
    assert_eq!(texts(&last), ["no API key"]);
}

#[tokio::test]
async fn a_server_that_eats_its_memory_is_named() {
    let Some(fleet) = Fleet::new() else { return };
    let mut spec = workload(&["eat"]);
    spec.isolation.memory = 16 << 20;
    let name = fleet.run("hungry", &spec).await;
    let exit = fleet.ended(&name).await;
    assert!(exit.oom_killed, "{exit:?}");
    assert_eq!(
        exit.to_string(),
        "was killed for using more memory than it may"
    );
}

#[tokio::test]
async fn of_two_who_make_the_same_container_one_makes_it() {
    let Some(fleet) = Fleet::new() else { return };
    let spec = workload(&["wait"]);
    let (one, other) = tokio::join!(fleet.create("race", &spec), fleet.create("race", &spec));
    let mut made = [one.expect("an answer"), other.expect("an answer")];
    made.sort_by_key(|made| *made == Created::AlreadyThere);
    assert_eq!(made, [Created::Created, Created::AlreadyThere]);
    assert_eq!(
        fleet.inspect(&fleet.name("race")).await.state,
        State::Created
    );
    // The networks were made in a race as well.
    let label = format!("label=dev.mcp-fleet.fleet={}", fleet.id);
    let networks = fleet
        .engine
        .docker(&["network", "ls", "--quiet", "--filter", &label]);
    assert_eq!(networks.lines().count(), 1, "{networks}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let Some(fleet) = Fleet::new() else { return };
    let mut spec = workload(&[]);
    spec.entrypoint = Some(vec!["/nowhere".into()]);
    let name = fleet.run("missing", &spec).await;
    let exit = fleet.ended(&name).await;
    assert_eq!(
        exit.to_string(),
        "found no program it could run (exit code 127)"
    );
    let lines = fleet.docker.last_lines(&name, 1).await.expect("lines");
    assert!(lines[0].text.contains("/nowhere"), "{lines:?}");
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let Some(fleet) = Fleet::new() else { return };
    let mut spec = workload(&["wait"]);
    spec.volumes = vec![mcp_fleet::templates::spec::Mount {
        source: "/nowhere/at/all".into(),
        target: "/data".into(),
        read_only: true,
    }];
    let error = fleet.create("mount", &spec).await.expect_err("refused");
    assert!(matches!(error.cause, Cause::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[tokio::test]
async fn an_image_that_went_away_meanwhile_is_named() {
    let Some(fleet) = Fleet::new() else { return };
    let image = format!("mcp-fleet-test/brief-{}:1", fleet.id);
    fleet.engine.docker(&["tag", IMAGE, &image]);
    let resolved = fleet.docker.ensure_image(&image, |_| {}).await;
    assert!(resolved.expect("it is there").id.starts_with("sha256:"));
    fleet.engine.docker(&["rmi", &image]);
    let gone = mcp_fleet::engine::ResolvedImage {
        id: format!("sha256:{}", "0".repeat(64)),
        ..fleet.image().await
    };
    let mut spec = workload(&["wait"]);
    spec.image = image.clone();
    let network = fleet
        .docker
        .ensure_network(&fleet.id, spec.isolation.network)
        .await
        .expect("a network");
    let new = mcp_fleet::engine::NewContainer {
        name: &fleet.name("gone"),
        labels: &fleet.labels("gone"),
        spec: &spec,
        image: &gone,
        network: &network,
        bridge: None,
    };
    let error = fleet.docker.create(&new).await.expect_err("no image");
    assert_eq!(error.subject, Subject::Image(image));
    assert_eq!(error.cause, Cause::NotFound);
}

#[tokio::test]
async fn only_the_fleets_own_containers_are_listed_and_strangers_stay() {
    let Some(fleet) = Fleet::new() else { return };
    let Some(other) = Fleet::new() else { return };
    let stranger = format!("stranger-{}", fleet.id);
    fleet
        .engine
        .docker(&["create", "--name", &stranger, "--network", "none", IMAGE]);
    let neighbour = other.run("same", &workload(&["wait"])).await;
    let own = fleet.run("same", &workload(&["wait"])).await;
    let ended = fleet.run("ended", &workload(&["exit", "1", "x"])).await;
    fleet.ended(&ended).await;

    let listed = fleet.docker.list(&fleet.id).await.expect("a list");
    let names: Vec<_> = listed.iter().map(|container| &container.name).collect();
    assert_eq!(names, [&ended, &own]);
    assert!(matches!(&listed[0].state, State::Exited(exit) if exit.code == 1));
    assert!(listed[1].address.is_some());

    for name in [&own, &ended] {
        fleet.docker.remove(name).await.expect("removed");
    }
    fleet.docker.remove_unused(&fleet.id).await.expect("tidy");
    assert_eq!(fleet.left(), Vec::<String>::new());
    assert!(matches!(
        other.inspect(&neighbour).await.state,
        State::Running { .. }
    ));
    assert_eq!(other.left().len(), 2);
    fleet.engine.docker(&["rm", &stranger]);
}

#[tokio::test]
async fn what_is_used_is_known() {
    let Some(fleet) = Fleet::new() else { return };
    let mut spec = workload(&["spin"]);
    spec.isolation.cpus = 0.5;
    spec.isolation.memory = 32 << 20;
    let name = fleet.run("spin", &spec).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let stats = loop {
        let stats = fleet.docker.stats(&name).await.expect("stats");
        if stats.cpu_percent > 10.0 || Instant::now() > deadline {
            break stats;
        }
    };
    assert!((10.0..90.0).contains(&stats.cpu_percent), "{stats:?}");
    assert_eq!(stats.memory_limit, 32 << 20);
    assert!((1..32 << 20).contains(&stats.memory), "{stats:?}");
    assert!((1..5).contains(&stats.pids), "{stats:?}");
}

#[tokio::test]
async fn who_waits_without_looking_keeps_nobody_else_waiting() {
    let Some(fleet) = Fleet::new() else { return };
    let settings = mcp_fleet::engine::Settings {
        max_in_flight: 1,
        ..fleet.engine.settings()
    };
    let fleet = Fleet::with(std::sync::Arc::clone(&fleet.engine), settings);
    let mut begun: Vec<_> = (0..4)
        .map(|_| Box::pin(fleet.docker.inspect("nobody")))
        .collect();
    for one in &mut begun {
        assert!(futures_util::poll!(one).is_pending());
    }
    // They are waited for, but not before something else is done.
    let listed = fleet.docker.list(&fleet.id);
    let listed = tokio::time::timeout(Duration::from_secs(30), listed).await;
    assert_eq!(listed.expect("it got its turn"), Ok(Vec::new()));
    for one in begun {
        assert_eq!(one.await, Ok(None));
    }
}
