//! A world of containers, in which everything that can come between two looks
//! does: ends, half-done plans, a node that takes over, another wish.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PACE: Pace = Pace {
    drain: Duration::from_secs(5),
    notice: Duration::from_secs(1),
    backoff: Duration::from_millis(500),
    backoff_cap: Duration::from_secs(8),
    settled: Duration::from_secs(20),
};

fn name(spec: &SpecHash, ordinal: u32) -> String {
    format!("{spec}-{ordinal}")
}

fn spec(number: u32) -> SpecHash {
    SpecHash::named(&format!("{number:08x}"))
}

fn run(number: u32, replicas: u32) -> Goal {
    Goal::Run {
        spec: spec(number),
        replicas,
    }
}

/// What happens between two looks.
#[derive(Debug, Clone)]
enum Happening {
    /// The steps of a plan are done, as far as the mask says.
    Look { mask: u16, publishes: bool },
    /// Time passes, in milliseconds.
    Pass(u64),
    /// A container ends.
    Crash(usize),
    /// Another node goes on: it knows what was published, and no more.
    TakeOver,
    /// Something else is wanted.
    Want { spec: u32, replicas: u32 },
    /// It is to stand still.
    Stop,
    /// Whether servers of that spec answer at all.
    Break { spec: u32, broken: bool },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (any::<u16>(), prop::bool::weighted(0.8)).prop_map(|(mask, publishes)| Happening::Look { mask, publishes }),
        3 => (1u64..4000).prop_map(Happening::Pass),
        2 => (0usize..8).prop_map(Happening::Crash),
        1 => Just(Happening::TakeOver),
        1 => (1u32..4, 1u32..4).prop_map(|(spec, replicas)| Happening::Want { spec, replicas }),
        1 => Just(Happening::Stop),
        1 => (1u32..4, any::<bool>()).prop_map(|(spec, broken)| Happening::Break { spec, broken }),
    ]
}

struct World {
    goal: Goal,
    containers: BTreeMap<String, Seen>,
    history: History,
    broken: BTreeMap<SpecHash, bool>,
    /// Told to end, or ended so: they still run for a while.
    stopped: BTreeSet<String>,
    now: Instant,
    /// Tells lives of containers apart.
    lives: u64,
}

impl World {
    fn new(goal: Goal) -> Self {
        Self {
            goal,
            containers: BTreeMap::new(),
            history: History::default(),
            broken: BTreeMap::new(),
            stopped: BTreeSet::new(),
            now: Instant::now(),
            lives: 0,
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.containers.values().cloned().collect()
    }

    fn plan(&mut self) -> Plan {
        let (seen, now) = (self.seen(), self.now);
        let wanted = self.wanted();
        self.history
            .notice(&seen, now, &PACE, |name| wanted.contains(name));
        if let Goal::Stopped | Goal::Gone = self.goal {
            self.history.rest(&seen);
        }
        plan(&self.goal, &seen, &self.history, now, &PACE, name)
    }

    fn wanted(&self) -> BTreeSet<String> {
        match &self.goal {
            Goal::Run { spec, replicas } => (0..*replicas).map(|n| name(spec, n)).collect(),
            Goal::Stopped | Goal::Gone => BTreeSet::new(),
        }
    }

    fn answers(&self, name: &str) -> bool {
        let life = self.containers.get(name).map(|one| one.life);
        matches!(life, Some(Life::Running(since)) if self.history.of(name).is_ready(since))
    }

    /// It answers, and all nodes know of it.
    fn serves(&self, name: &str) -> bool {
        self.answers(name) && self.history.of(name).routed
    }

    /// What must hold of every plan, whatever happened before.
    fn check(&self, plan: &Plan) {
        let mut touched = BTreeSet::new();
        for action in &plan.actions {
            let name = match action {
                Action::Create(ordinal) => {
                    let Goal::Run { spec, replicas } = &self.goal else {
                        panic!("{action:?} while nothing is to run");
                    };
                    assert!(ordinal < replicas);
                    let name = name(spec, *ordinal);
                    assert!(!self.containers.contains_key(&name), "{name} is there");
                    name
                }
                Action::Start(name)
                | Action::Probe(name)
                | Action::Stop(name)
                | Action::Remove(name) => {
                    assert!(self.containers.contains_key(name), "{name} is not ours");
                    name.clone()
                }
            };
            assert!(touched.insert(name), "two steps for one container");
        }
        let Goal::Run { .. } = self.goal else { return };
        for action in &plan.actions {
            if let Action::Start(name) = action {
                let is_over = self.stopped.contains(name) && !self.wanted().contains(name);
                assert!(!is_over, "{name} was stopped, and something else is wanted");
            }
        }
        let ended: Vec<_> = plan
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Stop(name) | Action::Remove(name) => Some(name),
                Action::Create(_) | Action::Start(_) | Action::Probe(_) => None,
            })
            .collect();
        for name in &ended {
            if self.answers(name) && !self.stopped.contains(*name) {
                let past = self.history.of(name);
                assert!(!past.routed, "{name} is removed while calls go there");
                let others = self
                    .containers
                    .keys()
                    .filter(|other| !ended.contains(other));
                assert!(
                    others.clone().any(|other| self.answers(other)),
                    "the last one that answers is removed: {name}"
                );
            }
        }
        // Nothing is taken out of routing before something else is in it.
        let serving = self
            .containers
            .keys()
            .filter(|name| self.serves(name))
            .count();
        if serving > 0 {
            assert!(!plan.routed.is_empty());
        }
    }

    fn act(&mut self, action: &Action) {
        self.lives += 1;
        match action {
            Action::Create(ordinal) => {
                let Goal::Run { spec, .. } = &self.goal else {
                    return;
                };
                let one = Seen {
                    name: name(spec, *ordinal),
                    spec: spec.clone(),
                    ordinal: *ordinal,
                    life: Life::Running(self.lives),
                };
                self.stopped.remove(&one.name);
                self.history.entry(&one.name).started();
                self.containers.insert(one.name.clone(), one);
            }
            Action::Start(name) => {
                if let Some(one) = self.containers.get_mut(name) {
                    one.life = Life::Running(self.lives);
                    self.stopped.remove(name);
                    self.history.entry(name).started();
                    self.history.entry(name).restarts += 1;
                }
            }
            Action::Probe(name) => {
                let Some(one) = self.containers.get(name) else {
                    return;
                };
                let broken = self.broken.get(&one.spec).copied().unwrap_or(false);
                if let (Life::Running(since), false) = (one.life, broken) {
                    self.history.entry(name).answered(since, self.now);
                }
            }
            Action::Stop(name) => {
                self.history.entry(name).told_to_stop = true;
                self.stopped.insert(name.clone());
            }
            Action::Remove(name) => {
                self.containers.remove(name);
                self.stopped.remove(name);
            }
        }
    }

    fn publish(&mut self, plan: &Plan) {
        self.history
            .published(|name| plan.routed.contains(name), self.now);
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Look { mask, publishes } => {
                let plan = self.plan();
                self.check(&plan);
                for (at, action) in plan.actions.iter().enumerate() {
                    if mask & (1 << (at % 16)) != 0 {
                        self.act(action);
                    }
                }
                if *publishes {
                    self.publish(&plan);
                }
            }
            Happening::Pass(millis) => self.pass(Duration::from_millis(*millis)),
            Happening::Crash(which) => {
                self.lives += 1;
                let lives = self.lives;
                let at = which % self.containers.len().max(1);
                if let Some(one) = self.containers.values_mut().nth(at)
                    && let Life::Running(_) = one.life
                {
                    one.life = Life::Exited(lives);
                }
            }
            Happening::TakeOver => {
                let mut known = History::default();
                for name in self.containers.keys() {
                    let past = self.history.of(name);
                    let mine = known.entry(name);
                    mine.routed = past.routed;
                    mine.served = past.served;
                    mine.failures = past.failures;
                    mine.restarts = past.restarts;
                    mine.told_to_stop = past.told_to_stop;
                    mine.withdrawn = past.withdrawn.map(|_| self.now);
                    mine.ready = past.ready.map(|(life, _)| (life, self.now));
                }
                self.history = known;
            }
            Happening::Want { spec, replicas } => self.goal = run(*spec, *replicas),
            Happening::Stop => self.goal = Goal::Stopped,
            Happening::Break {
                spec: number,
                broken,
            } => {
                self.broken.insert(spec(*number), *broken);
            }
        }
    }

    /// It is to run again, if it was not.
    fn resume(&mut self) {
        if self.goal == Goal::Stopped {
            self.goal = run(1, 2);
        }
    }

    /// What is told to end has ended by then.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for name in &self.stopped {
            self.lives += 1;
            if let Some(one) = self.containers.get_mut(name)
                && let Life::Running(_) = one.life
            {
                one.life = Life::Exited(self.lives);
            }
        }
    }

    /// Lets everything come to rest: whole plans, and time.
    fn settle(&mut self) {
        self.broken.clear();
        for _ in 0..200 {
            let plan = self.plan();
            self.check(&plan);
            for action in &plan.actions {
                self.act(action);
            }
            self.publish(&plan);
            self.pass(Duration::from_millis(400));
        }
    }
}

proptest! {
    #[test]
    fn it_comes_to_what_is_wanted_whatever_happens(happenings in prop::collection::vec(happening(), 0..60)) {
        let mut world = World::new(run(1, 2));
        for happening in &happenings {
            world.happen(happening);
        }
        world.resume();
        world.settle();
        let there: BTreeSet<_> = world.containers.keys().cloned().collect();
        prop_assert_eq!(&there, &world.wanted());
        for name in &there {
            prop_assert!(world.serves(name), "{} does not serve", name);
            prop_assert!(world.history.of(name).withdrawn.is_none());
        }
        let plan = world.plan();
        prop_assert_eq!(plan.actions, Vec::new());
        prop_assert_eq!(plan.routed, there);
    }

    #[test]
    fn what_is_removed_leaves_nothing(happenings in prop::collection::vec(happening(), 0..40)) {
        let mut world = World::new(run(1, 2));
        for happening in &happenings {
            world.happen(happening);
        }
        world.goal = Goal::Gone;
        world.settle();
        prop_assert!(world.containers.is_empty());
        prop_assert_eq!(world.plan(), Plan::default());
    }

    #[test]
    fn what_is_stopped_stands_still_and_comes_back(happenings in prop::collection::vec(happening(), 0..40)) {
        let mut world = World::new(run(1, 2));
        for happening in &happenings {
            world.happen(happening);
        }
        world.resume();
        let goal = std::mem::replace(&mut world.goal, Goal::Stopped);
        world.settle();
        let runs = |one: &Seen| matches!(one.life, Life::Running(_));
        prop_assert!(!world.containers.values().any(runs));
        prop_assert!(world.plan().routed.is_empty());
        world.goal = goal;
        world.settle();
        prop_assert_eq!(world.containers.len(), world.wanted().len());
        prop_assert!(world.containers.values().all(runs));
    }
}

fn act_all(world: &mut World) -> Vec<Action> {
    let plan = world.plan();
    world.check(&plan);
    for action in &plan.actions {
        world.act(action);
    }
    world.publish(&plan);
    plan.actions
}

#[test]
fn an_update_goes_one_by_one_and_takes_nothing_away_before_it_is_replaced() {
    let mut world = World::new(run(1, 2));
    world.settle();
    world.goal = run(2, 2);
    let old = |n| name(&spec(1), n);
    let new = |n| name(&spec(2), n);
    assert_eq!(act_all(&mut world), [Action::Create(0)]);
    assert_eq!(act_all(&mut world), [Action::Probe(new(0))]);
    // It answers: published beside the old ones.
    assert_eq!(act_all(&mut world), [Action::Create(1)]);
    assert!(world.history.of(&new(0)).routed && world.history.of(&old(0)).routed);
    // All nodes know of it: one of the old ones is out.
    let plan = world.plan();
    assert!(!plan.routed.contains(&old(1)) && plan.routed.contains(&old(0)));
    assert_eq!(act_all(&mut world), [Action::Probe(new(1))]);
    act_all(&mut world);
    act_all(&mut world);
    assert_eq!(world.containers.len(), 4, "calls have time to end");
    world.now += PACE.drain;
    let mut removed = act_all(&mut world);
    removed.sort();
    assert_eq!(removed, [Action::Remove(old(0)), Action::Remove(old(1))]);
}

#[test]
fn an_update_that_never_answers_leaves_the_old_replicas_alone() {
    let mut world = World::new(run(1, 2));
    world.settle();
    world.broken.insert(spec(2), true);
    world.goal = run(2, 2);
    for step in 0..300 {
        act_all(&mut world);
        world.now += Duration::from_millis(300);
        if step % 7 == 0 {
            world.happen(&Happening::Crash(2));
        }
    }
    for n in 0..2 {
        assert!(world.serves(&name(&spec(1), n)));
    }
    // The one before is wanted again: what did not work is gone.
    world.goal = run(1, 2);
    world.settle();
    assert_eq!(world.containers.len(), 2);
}

#[test]
fn what_was_stopped_does_not_come_back_for_something_else() {
    // Stopped, and still at its last calls; stopped; stopped, and looked after
    // by another node; ended before it was to stop.
    for (is_over, is_taken_over, crashes) in [
        (false, false, false),
        (true, false, false),
        (true, true, false),
        (true, true, true),
    ] {
        let mut world = World::new(run(1, 1));
        world.settle();
        if crashes {
            world.happen(&Happening::Crash(0));
        }
        world.goal = Goal::Stopped;
        act_all(&mut world);
        world.now += PACE.notice;
        act_all(&mut world);
        // It is seen to run after it was told to end.
        act_all(&mut world);
        if is_over {
            world.pass(Duration::from_secs(1));
            act_all(&mut world);
        }
        if is_taken_over {
            world.happen(&Happening::TakeOver);
        }
        world.goal = run(2, 1);
        let (old, plan) = (name(&spec(1), 0), world.plan());
        assert!(plan.actions.contains(&Action::Create(0)));
        assert!(!plan.actions.contains(&Action::Start(old.clone())));
        assert!(!plan.routed.contains(&old));
        world.settle();
        assert_eq!(world.containers.len(), 1);
    }
}

#[test]
fn a_crashed_replica_waits_longer_each_time() {
    let mut world = World::new(run(1, 1));
    world.broken.insert(spec(1), true);
    act_all(&mut world);
    let mut waits = Vec::new();
    for _ in 0..6 {
        world.happen(&Happening::Crash(0));
        let ended = world.now;
        while !act_all(&mut world).contains(&Action::Start(name(&spec(1), 0))) {
            let again = world.plan().again.expect("something to wait for");
            world.now = again;
        }
        waits.push((world.now - ended).as_millis());
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000]);
}

#[test]
fn a_smaller_count_takes_the_last_ones_out() {
    let mut world = World::new(run(1, 3));
    world.settle();
    world.goal = run(1, 1);
    act_all(&mut world);
    assert_eq!(world.containers.len(), 3);
    world.settle();
    assert_eq!(world.containers.keys().collect::<Vec<_>>(), ["00000001-0"]);
}

#[test]
fn the_only_replica_stays_in_routing_while_it_is_away() {
    let mut world = World::new(run(1, 1));
    world.settle();
    let one = name(&spec(1), 0);
    for life in [Life::Exited(1000), Life::Going] {
        world.containers.get_mut(&one).expect("there").life = life;
        assert!(world.plan().routed.contains(&one), "{life:?}");
    }
    world.containers.remove(&one);
    let plan = world.plan();
    assert_eq!(plan.actions, [Action::Create(0)], "at once");
    assert!(plan.routed.contains(&one));
    // One that never answered is nobody's to call.
    world.goal = run(2, 1);
    assert!(!world.plan().routed.contains(&name(&spec(2), 0)));
}
