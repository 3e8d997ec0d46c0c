//! Explores a model: every state that can be reached, breadth first, so that a
//! counterexample is as short as any.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
};

/// Nodes and store as states and steps.
pub(super) trait Model {
    /// Everything at one moment.
    type State: Copy + Eq + Hash + fmt::Debug;
    /// What happens next.
    type Step: Copy + fmt::Debug;

    /// Where it begins.
    fn start(&self) -> Self::State;

    /// Tells `take` of every step that is possible, and where it leads.
    fn steps(&self, state: &Self::State, take: &mut dyn FnMut(Self::Step, Self::State));

    /// Whether a step is a fault, or somebody's wish: it may happen, and
    /// nothing may depend on it.
    fn is_optional(&self, step: Self::Step) -> bool;

    /// What must never be, if this is it.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;

    /// What is always reached in the end, on every path, once nothing optional
    /// happens any more.
    fn is_goal(&self, state: &Self::State) -> bool;
}

/// The size of what was explored.
#[derive(Debug)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) steps: usize,
}

/// How a model goes wrong.
#[derive(Debug)]
pub(super) struct Counterexample {
    pub(super) what: &'static str,
    /// From the start: each step, and the state after it.
    trace: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:\n{}", self.what, self.trace.join("\n"))
    }
}

/// What [`Model::is_goal`] says is not reached.
pub(super) const NEVER_ENDS: &str = "there is a way on which the goal is never reached";

/// Visits every state.
pub(super) fn explore<M: Model>(model: &M) -> Result<Explored, Counterexample> {
    let mut search = Search::new(model);
    let start = model.start();
    search.index.insert(start, 0);
    search.found.push((start, 0, None));
    search.queue.push_back(0);
    while let Some(at) = search.queue.pop_front() {
        search.visit(at)?;
    }
    let explored = Explored {
        states: search.found.len(),
        steps: search.taken,
    };
    search.all_reach_the_goal()?;
    Ok(explored)
}

struct Search<'m, M: Model> {
    model: &'m M,
    index: HashMap<M::State, u32, BuildHasherDefault<Mix>>,
    /// Each state, and whence it was found.
    found: Vec<(M::State, u32, Option<M::Step>)>,
    queue: VecDeque<u32>,
    /// Steps that are not optional, between states that are not the goal, backwards.
    backwards: Vec<(u32, u32)>,
    /// How many steps lead from each state that are not optional.
    ways: Vec<u32>,
    taken: usize,
}

impl<'m, M: Model> Search<'m, M> {
    fn new(model: &'m M) -> Self {
        Self {
            model,
            index: HashMap::default(),
            found: Vec::new(),
            queue: VecDeque::new(),
            backwards: Vec::new(),
            ways: Vec::new(),
            taken: 0,
        }
    }

    fn visit(&mut self, at: u32) -> Result<(), Counterexample> {
        let state = self.found[at as usize].0;
        if let Some(what) = self.model.broken(&state) {
            return Err(self.counterexample(what, at));
        }
        let mut next = Vec::new();
        self.model
            .steps(&state, &mut |step, after| next.push((step, after)));
        self.taken += next.len();
        let mut ways = 0;
        for (step, after) in next {
            let to = match self.index.entry(after) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let to = u32::try_from(self.found.len()).expect("fewer states");
                    new.insert(to);
                    self.found.push((after, at, Some(step)));
                    self.queue.push_back(to);
                    to
                }
            };
            if !self.model.is_optional(step) {
                ways += 1;
                self.backwards.push((to, at));
            }
        }
        // In the order in which states are visited, which is that of `found`.
        self.ways.push(ways);
        Ok(())
    }

    /// Begins with the goals, and adds again and again the states all of whose
    /// ways lead to what was added already. The rest can avoid the goal.
    fn all_reach_the_goal(mut self) -> Result<(), Counterexample> {
        self.backwards.sort_unstable();
        let goal = |at: &u32| self.model.is_goal(&self.found[*at as usize].0);
        let mut reaches: Vec<bool> = (0..self.found.len() as u32).map(|at| goal(&at)).collect();
        let mut added: Vec<u32> = (0..self.found.len() as u32).filter(goal).collect();
        while let Some(to) = added.pop() {
            let from = self.backwards.partition_point(|(other, _)| *other < to);
            for (_, at) in self.backwards[from..]
                .iter()
                .take_while(|(other, _)| *other == to)
            {
                let at = *at as usize;
                self.ways[at] -= 1;
                if self.ways[at] == 0 && !reaches[at] {
                    reaches[at] = true;
                    added.push(at as u32);
                }
            }
        }
        match reaches.iter().position(|reaches| !reaches) {
            Some(at) => Err(self.counterexample(NEVER_ENDS, at as u32)),
            None => Ok(()),
        }
    }

    fn counterexample(&self, what: &'static str, mut at: u32) -> Counterexample {
        let mut trace = Vec::new();
        while let (state, from, Some(step)) = &self.found[at as usize] {
            trace.push(format!("{step:?}\n    {state:?}"));
            at = *from;
        }
        trace.reverse();
        Counterexample { what, trace }
    }
}

/// A hash that is quick without optimisation: states are many small numbers.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u64(discriminant as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}
