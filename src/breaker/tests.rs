use proptest::prelude::*;

use super::*;

fn failures(kinds: &[Failure], now: Instant) -> Breaker {
    let fail = |breaker: Breaker, kind: &Failure| breaker.after_failure(*kind, now, now, 1.0);
    kinds.iter().fold(Breaker::default(), fail)
}

#[tokio::test]
async fn two_refusals_or_three_broken_answers_in_a_row_open_it() {
    use Failure::{Broken, Unreachable};
    let now = Instant::now();
    for closed in [&[][..], &[Unreachable], &[Broken, Broken]] {
        assert!(!failures(closed, now).is_open(), "{closed:?}");
    }
    for open in [
        &[Unreachable, Unreachable][..],
        &[Broken, Broken, Broken],
        &[Broken, Broken, Unreachable],
    ] {
        assert!(failures(open, now).is_open(), "{open:?}");
    }
    let interrupted = failures(&[Unreachable], now).after_success(now, now);
    assert!(interrupted.is_untroubled());
}

#[tokio::test]
async fn pauses_double_up_to_the_longest_and_begin_anew_after_a_calm_success() {
    let now = Instant::now();
    let mut breaker = failures(&[Failure::Unreachable; 2], now);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        pauses.push((breaker.trial_due().expect("open") - now).as_secs());
        breaker = breaker.trial_failed(now, 1.0);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    let closed = breaker.recovered(now);
    assert!(!closed.is_open());
    let later = now + PROBATION;
    let calm = closed.after_success(later, later);
    assert!(calm.is_untroubled());
    let again = [1, 2].iter().fold(calm, |breaker, _| {
        breaker.after_failure(Failure::Unreachable, later, later, 1.0)
    });
    assert_eq!(again.trial_due(), Some(later + FIRST_PAUSE));
}

#[tokio::test]
async fn on_probation_one_failure_opens_it_for_longer() {
    let now = Instant::now();
    let closed = failures(&[Failure::Unreachable; 2], now).recovered(now);
    let calmed = closed.after_success(now, now);
    for on_probation in [closed, calmed] {
        let open = on_probation.after_failure(Failure::Broken, now, now, 1.0);
        assert_eq!(open.trial_due(), Some(now + 2 * FIRST_PAUSE));
    }
}

#[tokio::test]
async fn what_began_before_the_state_says_nothing_about_it() {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    let open = failures(&[Failure::Unreachable; 2], now);
    // Its answer was on the way when the replica died.
    assert!(open.after_success(now, later).is_open());
    // This one was made although it is open.
    assert!(!open.after_success(later, later).is_open());
    // A call that hung since before the replica came back.
    let closed = open.recovered(later);
    assert!(
        !closed
            .after_failure(Failure::Broken, now, later, 1.0)
            .is_open()
    );
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Success,
    Refused,
    Broken,
    TrialFailed,
    Recovered,
    Postponed(u64),
}

fn step() -> impl Strategy<Value = (u64, f64, Step)> {
    let kind = prop_oneof![
        Just(Step::Success),
        Just(Step::Refused),
        Just(Step::Broken),
        Just(Step::TrialFailed),
        Just(Step::Recovered),
        (0u64..40_000).prop_map(Step::Postponed),
    ];
    (0u64..20_000, 0.0f64..1.0, kind)
}

proptest! {
    #[test]
    fn pauses_are_bounded_and_a_trial_can_always_close_it(steps in prop::collection::vec(step(), 0..60)) {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for (pause, jitter, step) in steps {
            now += Duration::from_millis(pause);
            let before = breaker;
            breaker = match step {
                Step::Success => breaker.after_success(now, now),
                Step::Refused => breaker.after_failure(Failure::Unreachable, now, now, jitter),
                Step::Broken => breaker.after_failure(Failure::Broken, now, now, jitter),
                Step::TrialFailed => breaker.trial_failed(now, jitter),
                Step::Recovered => breaker.recovered(now),
                Step::Postponed(ms) => breaker.postponed(now + Duration::from_millis(ms), 1),
            };
            if breaker.is_open() && !before.is_open() {
                let due = breaker.trial_due().expect("open");
                prop_assert!(due >= now + FIRST_PAUSE / 2 && due <= now + LONGEST_PAUSE);
            }
            if before.is_open() && !breaker.is_open() {
                prop_assert!(matches!(step, Step::Success | Step::Recovered));
            }
            prop_assert!(!breaker.recovered(now).is_open());
        }
    }
}
