//! Many ask, the best that answers in time wins. Knows nothing of tools.

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

/// One of those who try. Dropping it has to end its work.
pub(super) struct Runner<'a, N, T, E> {
    /// Lower is better. Of equals the first to answer wins.
    pub(super) priority: u8,
    /// Who it is.
    pub(super) name: N,
    /// Its try.
    pub(super) answer: BoxFuture<'a, Result<T, E>>,
}

/// How a race ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome<N, T, E> {
    /// The best that answered.
    pub(super) winner: Option<(N, T)>,
    /// Those that failed before the end.
    pub(super) failed: Vec<(N, E)>,
    /// Those that might have won and did not answer in time.
    pub(super) silent: Vec<N>,
    /// Those whose answer was not needed any more, or was worse.
    pub(super) beaten: Vec<N>,
}

/// Runs all at once. Over when nobody who still runs could win, or at the
/// deadline; who still runs then is dropped.
pub(super) async fn race<N: Copy, T, E>(
    runners: Vec<Runner<'_, N, T, E>>,
    deadline: Instant,
) -> Outcome<N, T, E> {
    let mut running: Vec<(u8, usize, N)> = Vec::with_capacity(runners.len());
    let mut answers = FuturesUnordered::new();
    for (index, runner) in runners.into_iter().enumerate() {
        running.push((runner.priority, index, runner.name));
        let answer = runner.answer;
        answers.push(async move { (index, answer.await) });
    }
    let mut best: Option<(u8, N, T)> = None;
    let mut failed = Vec::new();
    let mut beaten = Vec::new();
    let over = sleep_until(deadline);
    tokio::pin!(over);
    loop {
        let limit = best.as_ref().map_or(u8::MAX, |(priority, ..)| *priority);
        let may_win = |(priority, ..): &(u8, usize, N)| best.is_none() || *priority < limit;
        if !running.iter().any(may_win) {
            break;
        }
        let (index, answer) = tokio::select! {
            // An answer that is there counts, also at the deadline.
            biased;
            next = answers.next() => match next {
                Some(next) => next,
                None => break,
            },
            () = &mut over => break,
        };
        let Some(at) = running.iter().position(|(_, running, _)| *running == index) else {
            continue;
        };
        let (priority, _, name) = running.swap_remove(at);
        match answer {
            Err(error) => failed.push((name, error)),
            Ok(answer) if best.as_ref().is_none_or(|(best, ..)| priority < *best) => {
                let before = best.replace((priority, name, answer));
                beaten.extend(before.map(|(_, name, _)| name));
            }
            Ok(_) => beaten.push(name),
        }
    }
    let limit = best.as_ref().map(|(priority, ..)| *priority);
    let mut silent = Vec::new();
    for (priority, _, name) in running {
        match limit {
            Some(limit) if priority >= limit => beaten.push(name),
            Some(_) | None => silent.push(name),
        }
    }
    Outcome {
        winner: best.map(|(_, name, answer)| (name, answer)),
        failed,
        silent,
        beaten,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
        time::sleep,
    };

    use super::*;

    type One = Runner<'static, &'static str, u32, &'static str>;

    fn after(
        priority: u8,
        name: &'static str,
        millis: u64,
        answer: Result<u32, &'static str>,
    ) -> One {
        Runner {
            priority,
            name,
            answer: Box::pin(async move {
                sleep(Duration::from_millis(millis)).await;
                answer
            }),
        }
    }

    async fn run(runners: Vec<One>) -> (Outcome<&'static str, u32, &'static str>, u128) {
        let begun = Instant::now();
        let outcome = race(runners, begun + Duration::from_secs(2)).await;
        (outcome, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_best_wins_at_once() {
        let (outcome, took) = run(vec![
            after(2, "worse", 1, Ok(2)),
            after(1, "best", 30, Ok(1)),
            after(3, "never", 1_000_000, Ok(3)),
        ])
        .await;
        assert_eq!((outcome.winner, took), (Some(("best", 1)), 30));
        assert_eq!(outcome.beaten, ["worse", "never"]);
        assert!(outcome.failed.is_empty() && outcome.silent.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_better_one_that_is_silent_is_waited_for_until_the_deadline() {
        let (outcome, took) = run(vec![
            after(1, "dead", 1_000_000, Ok(1)),
            after(2, "good", 5, Ok(2)),
        ])
        .await;
        assert_eq!((outcome.winner, took), (Some(("good", 2)), 2000));
        assert_eq!(outcome.silent, ["dead"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_better_one_that_fails_is_not_waited_for() {
        let (outcome, took) = run(vec![
            after(1, "broken", 20, Err("no")),
            after(2, "good", 5, Ok(2)),
        ])
        .await;
        assert_eq!((outcome.winner, took), (Some(("good", 2)), 20));
        assert_eq!(outcome.failed, [("broken", "no")]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_equals_the_first_wins() {
        let (outcome, took) = run(vec![
            after(1, "slow", 50, Ok(1)),
            after(1, "quick", 10, Ok(2)),
        ])
        .await;
        assert_eq!((outcome.winner, took), (Some(("quick", 2)), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_answers() {
        let (outcome, took) = run(vec![]).await;
        assert_eq!((outcome.winner, took), (None, 0));
        let (outcome, took) = run(vec![
            after(1, "broken", 5, Err("no")),
            after(2, "broken too", 7, Err("no")),
        ])
        .await;
        assert_eq!((outcome.winner, took), (None, 7));
        assert_eq!(outcome.failed.len(), 2);
        let (outcome, took) = run(vec![after(1, "dead", 1_000_000, Ok(1))]).await;
        assert_eq!((outcome.winner, took), (None, 2000));
        assert_eq!(outcome.silent, ["dead"]);
    }

    #[tokio::test(start_paused = true)]
    async fn losers_are_dropped() {
        struct Guard(Arc<AtomicUsize>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let ended = Arc::new(AtomicUsize::new(0));
        let guarded = |name, millis| {
            let guard = Guard(Arc::clone(&ended));
            Runner {
                priority: 2,
                name,
                answer: Box::pin(async move {
                    let _guard = guard;
                    sleep(Duration::from_millis(millis)).await;
                    Ok::<_, &str>(2)
                }),
            }
        };
        let runners = vec![guarded("late", 500), guarded("later", 900)];
        let runners = runners.into_iter().chain([after(1, "best", 10, Ok(1))]);
        let (outcome, _) = run(runners.collect()).await;
        assert_eq!(outcome.winner, Some(("best", 1)));
        assert_eq!(ended.load(Ordering::Relaxed), 2);
    }

    /// Somebody who takes the connection and never says a word.
    #[tokio::test(start_paused = true)]
    async fn a_black_hole_costs_no_more_than_the_deadline_and_its_connection_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let black_hole = Runner {
            priority: 1,
            name: "black hole",
            answer: Box::pin(async move {
                let mut stream = TcpStream::connect(address).await.map_err(|_| "refused")?;
                let mut byte = [0];
                stream.read_exact(&mut byte).await.map_err(|_| "closed")?;
                Ok(1)
            }),
        };
        let begun = Instant::now();
        let racing = race(
            vec![black_hole, after(2, "good", 5, Ok(2))],
            begun + Duration::from_secs(2),
        );
        let (outcome, accepted) = tokio::join!(racing, listener.accept());
        assert_eq!(outcome.winner, Some(("good", 2)));
        assert_eq!(outcome.silent, ["black hole"]);
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        let (mut other_end, _) = accepted.expect("a connection");
        let read = other_end.read(&mut [0]).await.expect("an end");
        assert_eq!(read, 0, "the loser's connection is closed");
    }
}
