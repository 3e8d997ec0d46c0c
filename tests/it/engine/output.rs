//! What containers print.

use std::time::Duration;

use futures_util::StreamExt as _;
use mcp_fleet::engine::LogStream;

use super::{Fleet, texts, workload};

#[tokio::test]
async fn the_last_lines_come_first_and_new_ones_follow() {
    let Some(fleet) = Fleet::new() else { return };
    let name = fleet.run("tick", &workload(&["tick"])).await;
    fleet.output_until(&name, "tick 10").await;
    let lines = fleet.docker.logs(&name, Some(3), true).await.expect("logs");
    let numbers: Vec<_> = lines
        .take(8)
        .map(|line| {
            let text = line.expect("a line").text;
            text["tick ".len()..].parse::<u32>().expect("a number")
        })
        .collect()
        .await;
    assert!(numbers[0] >= 8, "{numbers:?}");
    assert!(
        numbers.is_sorted_by(|one, next| one + 1 == *next),
        "{numbers:?}"
    );
    let tail = fleet.docker.last_lines(&name, 2).await.expect("lines");
    assert_eq!(tail.len(), 2);
}

#[tokio::test]
async fn following_ends_with_the_container() {
    let Some(fleet) = Fleet::new() else { return };
    let name = fleet.run("count", &workload(&["count", "500"])).await;
    let lines = fleet.docker.logs(&name, None, true).await.expect("logs");
    let reading = lines.map(|line| line.expect("a line")).collect::<Vec<_>>();
    let stopping = async {
        fleet.output_until(&name, "err 500").await;
        fleet.docker.stop(&name, Duration::from_secs(10)).await
    };
    let (lines, stopped) = tokio::join!(reading, stopping);
    stopped.expect("stopped");
    let of = |stream| lines.iter().filter(move |line| line.stream == stream);
    let numbered = |word: &str| (1..=500).map(|n| format!("{word} {n}")).collect::<Vec<_>>();
    let out: Vec<_> = of(LogStream::Stdout)
        .map(|line| line.text.clone())
        .collect();
    let err: Vec<_> = of(LogStream::Stderr)
        .map(|line| line.text.clone())
        .collect();
    assert_eq!(out, numbered("out"));
    assert_eq!(err, numbered("err"));
}

#[tokio::test]
async fn bad_text_and_endless_lines_are_read() {
    let Some(fleet) = Fleet::new() else { return };
    let name = fleet.run("raw", &workload(&["raw"])).await;
    fleet.ended(&name).await;
    let lines = fleet.docker.last_lines(&name, 100).await.expect("lines");
    let lines = texts(&lines);
    assert_eq!(lines[0], "bad \u{fffd}\u{fffd} text");
    assert_eq!(*lines.last().expect("a line"), "no end");
    let long = &lines[1..lines.len() - 1];
    assert!(long.iter().all(|part| part.len() <= 80 << 10));
    assert_eq!(long.concat(), "x".repeat(200_000));
}

#[tokio::test]
async fn a_flood_is_kept_within_bounds() {
    let Some(fleet) = Fleet::new() else { return };
    let name = fleet.run("flood", &workload(&["flood", "60000000"])).await;
    let lines = fleet.docker.logs(&name, None, true).await.expect("logs");
    let mut lines = std::pin::pin!(lines);
    // Read to the end, however much the engine has thrown away already.
    while let Some(line) = lines.next().await {
        if line.expect("a line").text == "flooded" {
            break;
        }
    }
    let kept = fleet
        .docker
        .last_lines(&name, u32::MAX)
        .await
        .expect("lines");
    let bytes: usize = kept.iter().map(|line| line.text.len()).sum();
    assert!(bytes < 32_000_000, "{bytes}");
    assert_eq!(kept.last().expect("a line").text, "flooded");
}

#[tokio::test]
async fn a_container_that_is_not_there_is_named() {
    let Some(fleet) = Fleet::new() else { return };
    let error = fleet
        .docker
        .last_lines("nobody", 1)
        .await
        .expect_err("none");
    assert_eq!(
        error.to_string(),
        "cannot read the output of container nobody: there is none; it was removed by somebody else"
    );
}
