//! Containers that have come to the bounds they are kept in, in words. The
//! engine holds them there without telling anybody; the server in there fails
//! in ways that do not say why.

use crate::engine::Usage;

/// Share of the memory from which on that is worth mentioning.
const MUCH: f64 = 0.95;
const MEGABYTE: u64 = 1 << 20;

/// What is to be told of a container that uses so much; `None`: nothing.
pub(super) fn words(usage: &Usage) -> Option<String> {
    let Usage {
        pids,
        pids_limit,
        memory,
        memory_limit,
    } = *usage;
    if pids_limit > 0 && pids >= pids_limit {
        return Some(format!(
            "it has as many processes as it may ({pids_limit}); the next one fails"
        ));
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of memory in hundredths needs no exact bytes"
    )]
    let is_much = memory_limit > 0 && memory as f64 >= MUCH * memory_limit as f64;
    is_much.then(|| {
        let (used, limit) = (memory / MEGABYTE, memory_limit / MEGABYTE);
        format!("it uses {used} of the {limit} MiB of memory it may; with more it is killed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_at_its_bounds_is_told() {
        let usage = Usage {
            pids: 47,
            pids_limit: 48,
            memory: 100 << 20,
            memory_limit: 128 << 20,
        };
        assert_eq!(words(&usage), None);
        let forked = words(&Usage { pids: 48, ..usage }).unwrap();
        assert!(forked.contains("processes as it may (48)"), "{forked}");
        let full = Usage {
            memory: 127 << 20,
            ..usage
        };
        assert!(words(&full).unwrap().contains("127 of the 128 MiB"));
        // An engine that tells no limits.
        assert_eq!(
            words(&Usage {
                pids: 9,
                ..Usage::default()
            }),
            None
        );
    }
}
