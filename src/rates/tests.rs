use super::*;
use crate::{
    cluster::{Incarnation, Settings, membership::About},
    ids::NodeId,
    store::memory::MemoryStore,
};

const HOUR: Duration = Duration::from_secs(3600);

fn hourly(count: u32) -> Rate {
    Rate {
        count,
        per: HOUR,
        burst: count,
    }
}

fn limiter(principal: Option<Rate>) -> Limiter {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let settings = Settings {
        lease_ttl: Duration::from_secs(6),
    };
    let membership = Membership::new(
        Incarnation::of(&NodeId::named("a")),
        Arc::clone(&store),
        settings,
        Box::new(About::default),
    );
    Limiter::new(principal, store, Arc::new(membership))
}

fn client(address: &str) -> Client {
    Client::at(address.parse().expect("an address"))
}

async fn call(
    limiter: &Limiter,
    from: &str,
    (server, rates): (&str, &ServerRates),
    tool: &str,
) -> Result<(), Limited> {
    let server = ServerId::try_from(server).expect("a name");
    limiter
        .admit(
            client(from),
            (&server, rates),
            method::TOOLS_CALL,
            Some(tool),
        )
        .await
}

#[test]
fn a_subscriber_of_ipv6_is_one_client() {
    assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1:2:3"));
    assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
    assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
}

#[tokio::test(start_paused = true)]
async fn a_client_has_its_limit_over_all_servers() {
    let limiter = limiter(Some(hourly(4)));
    let none = ServerRates::default();
    for server in ["a", "b", "a", "b"] {
        call(&limiter, "10.0.0.1", (server, &none), "t")
            .await
            .expect("within the limit");
    }
    let refused = call(&limiter, "10.0.0.1", ("a", &none), "t").await;
    let refused = refused.expect_err("the limit is used up");
    assert_eq!(refused.what, Scope::Fleet);
    assert!(
        refused.after <= HOUR / 4 && refused.after > HOUR / 5,
        "{refused}"
    );
    call(&limiter, "10.0.0.2", ("a", &none), "t")
        .await
        .expect("another client");
    tokio::time::advance(HOUR / 4).await;
    call(&limiter, "10.0.0.1", ("a", &none), "t")
        .await
        .expect("one more by now");
    assert!(call(&limiter, "10.0.0.1", ("a", &none), "t").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_one_limit_costs_nothing_of_the_others() {
    let limiter = limiter(Some(hourly(3)));
    let rates = ServerRates {
        all: None,
        tools: [("rare".to_owned(), hourly(1))].into(),
    };
    call(&limiter, "10.0.0.1", ("a", &rates), "rare")
        .await
        .expect("the first");
    for _ in 0..10 {
        let refused = call(&limiter, "10.0.0.1", ("a", &rates), "rare").await;
        let refused = refused.expect_err("the second");
        assert!(matches!(refused.what, Scope::Tool(..)), "{refused}");
    }
    for _ in 0..2 {
        call(&limiter, "10.0.0.1", ("a", &rates), "often")
            .await
            .expect("not limited itself");
    }
    assert!(
        call(&limiter, "10.0.0.1", ("a", &rates), "often")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn only_what_reaches_a_server_counts() {
    let limiter = limiter(Some(hourly(1)));
    let server = ServerId::try_from("a").expect("a name");
    let rates = ServerRates::default();
    for method in ["tools/list", "ping", "subscriptions/listen"] {
        for _ in 0..5 {
            let admitted = limiter
                .admit(client("::1"), (&server, &rates), method, None)
                .await;
            admitted.expect("not counted");
        }
    }
    for (n, method) in ["prompts/get", "resources/read", "completion/complete"]
        .into_iter()
        .enumerate()
    {
        let admitted = limiter
            .admit(client("::1"), (&server, &rates), method, None)
            .await;
        assert_eq!(admitted.is_ok(), n == 0, "{method}");
    }
}
