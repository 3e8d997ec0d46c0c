use std::sync::Arc;

use super::*;

fn written(value: Value) -> Located {
    let place = Place::File {
        path: Arc::from("x.toml"),
        line: 1,
        column: 1,
    };
    Located { value, place }
}

fn quoted(text: &str) -> Located {
    written(Value::Text(text.into()))
}

fn variable(text: &str) -> Located {
    Located::text(text, Place::Variable("X".into()))
}

#[test]
fn durations_have_units() {
    let cases = [
        ("250ms", 250),
        ("30s", 30_000),
        ("1.5s", 1500),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("2d", 172_800_000),
        ("0", 0),
        ("0.1s", 100),
    ];
    for (text, millis) in cases {
        assert_eq!(
            parse_duration(text),
            Some(Duration::from_millis(millis)),
            "{text}"
        );
    }
    for text in [
        "",
        "30",
        "s",
        "-1s",
        "5 weeks",
        "1..5s",
        "1e9s",
        "99999999999999999999d",
    ] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn shown_durations_are_read_back() {
    for millis in [0, 1, 250, 1000, 1500, 60_000, 90_000, 3_600_000, 86_400_000] {
        let duration = Duration::from_millis(millis);
        assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
    }
}

#[test]
fn a_duration_out_of_range_names_the_range() {
    let parse = duration(Duration::from_secs(1)..=Duration::from_secs(3600));
    let problem = parse(&quoted("0s")).expect_err("too short");
    assert_eq!(
        problem.message,
        "expected a duration from 1s to 1h, found \"0s\""
    );
    let problem = parse(&written(Value::Integer(30))).expect_err("no unit");
    assert!(problem.message.contains("in quotes"), "{}", problem.message);
}

#[test]
fn sizes_have_units_or_are_bytes() {
    let parse = size(1_usize..=1 << 40);
    assert_eq!(parse(&quoted("4MiB")), Ok(4 << 20));
    assert_eq!(parse(&quoted("32 KiB")), Ok(32 << 10));
    assert_eq!(parse(&quoted("5MB")), Ok(5_000_000));
    assert_eq!(parse(&written(Value::Integer(77))), Ok(77));
    for bad in ["4M", "-1", "x", "", "99999999999GiB", "0"] {
        assert!(parse(&quoted(bad)).is_err(), "{bad}");
    }
}

#[test]
fn numbers_in_quotes_are_numbers_only_where_everything_is_text() {
    assert_eq!(count(1..=10_u32)(&variable("8")), Ok(8));
    assert!(count(1..=10_u32)(&quoted("8")).is_err());
    assert!(count(1..=10_u32)(&written(Value::Integer(11))).is_err());
    assert_eq!(boolean(&variable("off")), Ok(false));
    assert!(boolean(&quoted("true")).is_err());
}

#[test]
fn a_wrong_word_is_answered_with_the_nearest() {
    let words = [("text", 1), ("json", 2)];
    assert_eq!(choice(&words)(&quoted("json")), Ok(2));
    let problem = choice(&words)(&quoted("jsom")).expect_err("no such word");
    assert_eq!(
        problem.message,
        "expected \"text\" or \"json\", found \"jsom\"; did you mean \"json\"?"
    );
}

#[test]
fn listen_addresses_may_be_short() {
    let read = |text| listen_address(&quoted(text)).map(|address| address.to_string());
    assert_eq!(read("localhost:80"), Ok("127.0.0.1:80".into()));
    assert_eq!(read(":8080"), Ok("0.0.0.0:8080".into()));
    assert_eq!(read("[::1]:9"), Ok("[::1]:9".into()));
    for bad in ["8080", "example.com:80", "127.0.0.1", "127.0.0.1:99999"] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn lists_are_separated_by_commas_where_everything_is_text() {
    assert_eq!(texts(&variable("a, b,")), Ok(vec!["a".into(), "b".into()]));
    assert!(texts(&quoted("a, b")).is_err());
    let mixed = written(Value::List(vec![quoted("a"), written(Value::Integer(1))]));
    assert!(texts(&mixed).is_err());
}
