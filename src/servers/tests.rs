use super::*;
use crate::breaker::{Failure, Told};

fn server(policy: Policy, replicas: usize) -> Server {
    let id = ServerId::try_from("up").expect("a good name");
    let replica = |index: usize| {
        let uri = format!("http://127.0.0.1:{}/mcp", 1000 + index);
        let endpoint = Endpoint::Http(uri.parse().expect("a URI"));
        Arc::new(Replica::new(id.clone(), endpoint, 1))
    };
    let replicas = (0..replicas).map(replica).collect();
    Server::new(
        id.clone(),
        replicas,
        policy,
        Duration::from_secs(1),
        "config",
    )
}

fn break_down(replica: &Replica) {
    let now = Instant::now();
    for _ in 0..2 {
        replica.learn(Told::Failed(Failure::Unreachable), now, now);
    }
    assert!(!replica.is_usable());
}

fn picked(server: &Server) -> Vec<usize> {
    let mut counts = vec![0; server.replicas.len()];
    for _ in 0..300 {
        let replica = server.pick(&[]).expect("there is always one");
        let place = server.replicas.iter().position(|one| one.id == replica.id);
        counts[place.expect("its own")] += 1;
    }
    counts
}

const ALL: [Policy; 5] = [
    Policy::P2c,
    Policy::RoundRobin,
    Policy::LeastInFlight,
    Policy::Weighted,
    Policy::Random,
];

#[tokio::test]
async fn calls_go_to_usable_replicas_and_come_back_with_them() {
    for policy in ALL {
        let server = server(policy, 4);
        break_down(&server.replicas[1]);
        server.replicas[2].set_healthy(false);
        let counts = picked(&server);
        assert!(counts[0] > 50 && counts[3] > 50, "{policy:?} {counts:?}");
        assert_eq!((counts[1], counts[2]), (0, 0), "{policy:?}");
        server.replicas[1].change_breaker(|breaker| breaker.recovered(Instant::now()));
        server.replicas[2].set_healthy(true);
        let counts = picked(&server);
        assert!(
            counts.iter().all(|&count| count > 30),
            "{policy:?} {counts:?}"
        );
    }
}

#[tokio::test]
async fn when_all_look_bad_the_least_bad_are_tried() {
    for policy in ALL {
        let server = server(policy, 3);
        for replica in &server.replicas {
            break_down(replica);
        }
        assert!(
            picked(&server).iter().all(|&count| count > 30),
            "{policy:?}"
        );
        server.replicas[0].set_healthy(false);
        assert_eq!(picked(&server)[0], 0, "{policy:?}: it fails probes too");
        for replica in &server.replicas {
            replica.set_healthy(false);
        }
        assert!(
            picked(&server).iter().all(|&count| count > 30),
            "{policy:?}"
        );
    }
}

#[tokio::test]
async fn a_retry_takes_another_usable_one_first_and_every_one_once() {
    for policy in ALL {
        let server = server(policy, 5);
        break_down(&server.replicas[4]);
        let mut tried = Vec::new();
        while let Some(replica) = server.pick(&tried) {
            assert!(!tried.contains(&replica.id));
            tried.push(replica.id.clone());
        }
        assert_eq!(tried.len(), 5);
        assert_eq!(tried[4], server.replicas[4].id, "{policy:?}");
    }
}

#[tokio::test]
async fn new_sessions_avoid_what_is_unusable_and_others_stay() {
    let server = server(Policy::P2c, 3);
    let homes = || {
        let home = |session: usize| {
            server
                .home_of(&session.to_string(), &[])
                .map(|r| r.id.clone())
        };
        (0..60).filter_map(home).collect::<Vec<_>>()
    };
    let before = homes();
    let down = &server.replicas[1];
    break_down(down);
    let during = homes();
    assert!(!during.contains(&down.id));
    for (before, during) in before.iter().zip(&during) {
        assert!(before == during || *before == down.id);
    }
}

#[tokio::test]
async fn a_slow_replica_gets_little_by_p2c() {
    let server = server(Policy::P2c, 2);
    let now = Instant::now();
    for (replica, took) in server.replicas.iter().zip([1000, 10]) {
        let begun = InFlight::new(replica);
        replica
            .traffic
            .answered_after(Duration::from_millis(took), now);
        drop(begun);
    }
    assert_eq!(picked(&server)[0], 0);
    // It costs as much as a hundred calls at the other one.
    let busy: Vec<_> = (0..150).map(|_| server.replicas[1].begin()).collect();
    assert_eq!(picked(&server)[1], 0);
    drop(busy);
    server.replicas[1].set_others(150);
    assert_eq!(picked(&server)[1], 0, "calls of other nodes count too");
}

#[tokio::test]
async fn of_replicas_that_are_removed_nothing_is_left() {
    let metrics = Arc::new(Metrics::new());
    let stays = Arc::new(server(Policy::P2c, 2));
    let servers = Servers::counted(vec![Arc::clone(&stays)], Some(Arc::clone(&metrics)));
    let before = metrics.render();
    let mut gone = Vec::new();
    for round in 0..100 {
        let id = ServerId::try_from(&*format!("s{round}")).expect("a good name");
        let replicas = (0..100).map(|index| {
            let uri = format!("http://127.0.0.1:{}/mcp", 1000 + index);
            let endpoint = Endpoint::Http(uri.parse().expect("a URI"));
            Arc::new(Replica::new(id.clone(), endpoint, 1))
        });
        let replicas: Vec<_> = replicas.collect();
        gone.extend(replicas.iter().map(Arc::downgrade));
        let server = Server::new(id, replicas, Policy::P2c, Duration::from_secs(1), "config");
        let server = Arc::new(server);
        servers.replace(vec![Arc::clone(&stays), Arc::clone(&server)]);
        break_down(&server.replicas[0]);
        assert!(server.pick(&[]).is_some());
        servers.replace(vec![Arc::clone(&stays)]);
        metrics.forget_server(&server.id);
    }
    assert_eq!(gone.len(), 10_000);
    assert!(gone.iter().all(|replica| replica.strong_count() == 0));
    assert_eq!(metrics.render(), before);
}

#[tokio::test]
async fn a_replica_that_two_servers_share_tells_both() {
    let old = server(Policy::Random, 2);
    let replicas = old.replicas.clone();
    let new = Server::new(
        old.id.clone(),
        replicas,
        Policy::Random,
        old.timeout,
        "config",
    );
    assert!(picked(&old)[0] > 0 && picked(&new)[0] > 0);
    break_down(&old.replicas[0]);
    assert_eq!((picked(&old)[0], picked(&new)[0]), (0, 0));
}
