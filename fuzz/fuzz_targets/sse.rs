//! Event streams: the same events whatever the chunks, never more than the
//! limit, and what is written reads back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_fleet_fuzz::mcp::sse::{self, SseEvent, SseParser};

const LIMIT: usize = 256;

fuzz_target!(|input: &[u8]| {
    let Some((&size, stream)) = input.split_first() else {
        return;
    };
    let size = usize::from(size % 31) + 1;
    let whole = read([stream].into_iter());
    let pieces = read(stream.chunks(size));
    // A stream that breaks gives up within the event that is too large, so the
    // events before it are the same.
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
        (Err(()), Err(())) => {}
        _ => panic!("chunks decide whether an event is too large"),
    }
    for event in pieces.unwrap_or_default() {
        assert!(event.data.len() <= LIMIT);
        let written = sse::event(event.id.as_deref(), event.event.as_deref(), &event.data);
        let again = read([&written[..]].into_iter());
        if let Ok(again) = again {
            assert_eq!(
                again,
                [SseEvent {
                    retry_ms: None,
                    ..event
                }]
            );
        }
    }
});

fn read<'c>(chunks: impl Iterator<Item = &'c [u8]>) -> Result<Vec<SseEvent>, ()> {
    let mut parser = SseParser::new(LIMIT);
    let mut events = Vec::new();
    for chunk in chunks {
        events.extend(parser.push(chunk).map_err(|_| ())?);
    }
    Ok(events)
}
