//! Tests of the event stream reader and writer.

use proptest::{collection::vec, prelude::*};

use super::*;

const LIMIT: usize = 1 << 20;

fn read(chunks: &[&[u8]]) -> Vec<SseEvent> {
    let mut parser = SseParser::new(LIMIT);
    chunks
        .iter()
        .flat_map(|chunk| parser.push(chunk).expect("within the limit"))
        .collect()
}

fn data(text: &str) -> SseEvent {
    SseEvent {
        data: Bytes::copy_from_slice(text.as_bytes()),
        ..SseEvent::default()
    }
}

#[test]
fn lines_end_with_any_of_three() {
    for text in [
        "data: a\ndata:b\n\n",
        "data: a\rdata:b\r\r",
        "data: a\r\ndata:b\r\n\r\n",
        "data: a\ndata:b\r\n\r",
    ] {
        assert_eq!(read(&[text.as_bytes()]), [data("a\nb")], "{text:?}");
    }
}

#[test]
fn chunks_may_end_anywhere() {
    let text = "\u{feff}: hi\r\nevent: message\r\nid: s3-1\r\ndata: é👩‍💻\r\n\r\nretry: 250\r\n\r\ndata\r\n\r\n".as_bytes();
    let whole = read(&[text]);
    assert_eq!(whole.len(), 3);
    assert_eq!(whole[0].event.as_deref(), Some("message"));
    assert_eq!(whole[0].id.as_deref(), Some("s3-1"));
    assert_eq!(whole[0].data, "é👩‍💻");
    assert_eq!(whole[1].retry_ms, Some(250));
    assert_eq!(whole[2], data(""));
    for at in 0..=text.len() {
        assert_eq!(read(&[&text[..at], &text[at..]]), whole, "cut at {at}");
        assert_eq!(
            read(&[&text[..at], b"", &text[at..]]),
            whole,
            "empty chunk at {at}"
        );
    }
    let bytes: Vec<_> = text.chunks(1).collect();
    assert_eq!(read(&bytes), whole);
}

#[test]
fn fields_are_read_as_the_standard_says() {
    for (text, events) in [
        (": comment\n\n", vec![]),
        ("\n\n\n", vec![]),
        ("data: x\n", vec![]),
        ("data:  x\n\n", vec![data(" x")]),
        ("data:x\ndata\ndata: y\n\n", vec![data("x\n\ny")]),
        ("data\n\n", vec![data("")]),
        ("other: 1\nDATA: x\n data: y\n\n", vec![]),
        ("data: a: b\n\n", vec![data("a: b")]),
        ("retry: 1s\n\n", vec![]),
        ("retry: 99999999999999999999999\n\n", vec![]),
        ("id: a\0b\n\n", vec![]),
        (
            "id: 1\ndata: \n\n",
            vec![SseEvent {
                id: Some("1".into()),
                ..SseEvent::default()
            }],
        ),
        (
            "id\n\n",
            vec![SseEvent {
                id: Some(String::new()),
                ..SseEvent::default()
            }],
        ),
        (
            "event: a\nevent: b\ndata: x\n\n",
            vec![SseEvent {
                event: Some("b".into()),
                ..data("x")
            }],
        ),
        (
            "id: 7\n\ndata: x\n\n",
            vec![
                SseEvent {
                    id: Some("7".into()),
                    ..SseEvent::default()
                },
                data("x"),
            ],
        ),
        ("data: \u{feff}x\n\n", vec![data("\u{feff}x")]),
    ] {
        assert_eq!(read(&[text.as_bytes()]), events, "{text:?}");
    }
}

#[test]
fn large_events_break_the_stream() {
    let fits = format!("data: {}\n\n", "x".repeat(94));
    for text in [
        format!("data: {}\n\n", "x".repeat(95)),
        format!("data: {0}\ndata: {0}\n\n", "x".repeat(50)),
        format!(": {}", "x".repeat(99)),
        format!("id: {}\n", "x".repeat(99)),
    ] {
        let mut parser = SseParser::new(100);
        assert_eq!(parser.push(fits.as_bytes()).expect("fits").len(), 1);
        let outcome: Result<Vec<_>, _> = text
            .as_bytes()
            .chunks(7)
            .map(|chunk| parser.push(chunk))
            .collect();
        assert_eq!(outcome, Err(EventTooLarge { limit: 100 }), "{text}");
        assert!(parser.push(b"data: x\n\n").is_err(), "broken for good");
    }
}

#[test]
fn events_are_written_line_by_line() {
    assert_eq!(event(None, None, b"{}"), "data: {}\n\n");
    assert_eq!(event(Some("s-0"), None, b""), "id: s-0\ndata: \n\n");
    assert_eq!(
        event(Some("a\n\0b"), Some("end\rpoint"), b"1\r\n2\r3\n4"),
        "id: ab\nevent: endpoint\ndata: 1\ndata: 2\ndata: 3\ndata: 4\n\n"
    );
    assert_eq!(comment("keep\r\nalive"), ": keepalive\n\n");
    assert_eq!(retry(250), "retry: 250\n\n");
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        id in prop::option::of("[!-~]{0,10}"),
        name in prop::option::of("[a-z]{1,10}"),
        lines in vec("[^\r\n]{0,20}", 1..5),
        cuts in vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let text = lines.join("\n");
        let mut stream = comment("x").to_vec();
        stream.extend_from_slice(&event(id.as_deref(), name.as_deref(), text.as_bytes()));
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<_> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let expected = SseEvent { event: name, data: text.into(), id, retry_ms: None };
        prop_assert_eq!(read(&chunks), [expected]);
    }

    #[test]
    fn any_bytes_read_the_same_in_any_chunks(
        bytes in vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b' '), any::<u8>()], 0..80),
        words in vec(prop::sample::select(vec!["data:", "id: ", "event", "retry:5", "\n", "\r\n\r\n", "x"]), 0..20),
        size in 1usize..9,
    ) {
        for stream in [&bytes[..], words.concat().as_bytes()] {
            let chunks: Vec<_> = stream.chunks(size).collect();
            prop_assert_eq!(read(&chunks), read(&[stream]));
        }
    }

    #[test]
    fn no_event_exceeds_the_limit(bytes in vec(any::<u8>(), 0..300), limit in 1usize..50) {
        let mut parser = SseParser::new(limit);
        for chunk in bytes.chunks(9) {
            for event in parser.push(chunk).unwrap_or_default() {
                prop_assert!(event.data.len() <= limit);
            }
        }
    }
}
