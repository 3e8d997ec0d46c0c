//! What ordinary requests cost, in allocations: a guard against growing.
//!
//! `limits.txt` has the number and the bytes of each case as they were when
//! somebody last looked; a tenth more fails. Counts are the same on every
//! machine, so this needs neither quiet nor time. After a change that is worth
//! what it costs: `COSTS=write cargo test --test costs`.
//!
//! `tests/costs/instructions` runs one case a given number of times
//! (`costs CASE TIMES`) under callgrind, and has limits of the same kind.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test without a harness"
)]

mod cases;

use std::{alloc::System, fmt::Write as _, future::Future, process::ExitCode};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const LIMITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/costs/limits.txt");
/// Background tasks of a node run in between: the cheapest run is the case alone.
const RUNS: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    allocations: usize,
    bytes: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match &arguments[..] {
        [case, times] if !case.starts_with('-') => {
            let times = times.parse().expect("how often");
            runtime.block_on(cases::run(&mut Repeat {
                wanted: case,
                times,
                done: false,
            }));
            ExitCode::SUCCESS
        }
        // Whatever else `cargo test` passes on.
        _ => {
            let mut measured = Measure::default();
            runtime.block_on(cases::run(&mut measured));
            measured.compare()
        }
    }
}

/// What is done with each case.
trait Visitor {
    async fn case<F: Future>(&mut self, name: &'static str, run: impl FnMut() -> F);

    /// Whether the other cases need not be made ready.
    fn is_done(&self) -> bool;
}

/// Runs one of them so often.
struct Repeat<'a> {
    wanted: &'a str,
    times: usize,
    done: bool,
}

impl Visitor for Repeat<'_> {
    async fn case<F: Future>(&mut self, name: &'static str, mut run: impl FnMut() -> F) {
        if name == self.wanted {
            for _ in 0..self.times {
                std::hint::black_box(run().await);
            }
            self.done = true;
        }
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

/// Counts what each costs.
#[derive(Default)]
struct Measure(Vec<(&'static str, Cost)>);

impl Visitor for Measure {
    async fn case<F: Future>(&mut self, name: &'static str, mut run: impl FnMut() -> F) {
        let mut least: Option<Cost> = None;
        for _ in 0..RUNS {
            let region = Region::new(ALLOCATOR);
            std::hint::black_box(run().await);
            let change = region.change();
            let cost = Cost {
                allocations: change.allocations + change.reallocations,
                bytes: change.bytes_allocated,
            };
            least = Some(least.map_or(cost, |least| Cost {
                allocations: least.allocations.min(cost.allocations),
                bytes: least.bytes.min(cost.bytes),
            }));
        }
        self.0.extend(least.map(|cost| (name, cost)));
    }

    fn is_done(&self) -> bool {
        false
    }
}

impl Measure {
    fn compare(&self) -> ExitCode {
        let written = self.0.iter().fold(String::new(), |mut text, (name, cost)| {
            let Cost { allocations, bytes } = cost;
            writeln!(text, "{name} {allocations} {bytes}").expect("memory");
            text
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "how a person who runs it says so"
        )]
        let is_to_write = std::env::var("COSTS").is_ok_and(|what| what == "write");
        if is_to_write {
            std::fs::write(LIMITS, &written).expect("the limits can be written");
        }
        let limits = std::fs::read_to_string(LIMITS).unwrap_or_default();
        let mut failed = 0;
        for (name, cost) in &self.0 {
            let limit = limits.lines().find_map(|line| limit(line, name));
            let within = limit.is_some_and(|limit| {
                fits(cost.allocations, limit.allocations) && fits(cost.bytes, limit.bytes)
            });
            let verdict = if within { "ok" } else { "FAILED" };
            println!("test {name}: {cost:?}, at most a tenth above {limit:?} ... {verdict}");
            failed += usize::from(!within);
        }
        let passed = self.0.len() - failed;
        let result = if failed == 0 { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"
        );
        match failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

fn limit(line: &str, name: &str) -> Option<Cost> {
    let mut words = line.split(' ');
    (words.next()? == name).then_some(())?;
    Some(Cost {
        allocations: words.next()?.parse().ok()?,
        bytes: words.next()?.parse().ok()?,
    })
}

/// A tenth more is a change of the ordinary path; less is how types grow.
fn fits(cost: usize, limit: usize) -> bool {
    cost * 10 <= limit * 11
}
