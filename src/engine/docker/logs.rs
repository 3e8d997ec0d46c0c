//! What a container printed, line by line.

use bollard::{container::LogOutput, query_parameters::LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::timeout;

use super::{Cause, Docker, EngineError, Operation, call::About};
use crate::engine::{LogLine, LogStream};
use std::sync::Arc;

/// A longer line is given in parts.
const LINE: usize = 64 << 10;

impl Docker {
    /// The last `tail` lines (all that the engine kept: 30 MB at most), and
    /// with `follow` what comes after them until the container ends. Whoever
    /// reads slowly makes the engine wait, not this process.
    ///
    /// # Errors
    /// When there is no such container or the engine does not answer; as an
    /// item when the engine goes away later.
    pub async fn logs(
        self: &Arc<Self>,
        name: &str,
        tail: Option<u32>,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<LogLine, EngineError>> + Send + use<>, EngineError> {
        let tail = tail.map_or("all".to_owned(), |lines| lines.to_string());
        let options = LogsOptionsBuilder::new().follow(follow).tail(&tail);
        self.read_logs(name, options, follow).await
    }

    /// What a container prints from that second on, until it ends.
    ///
    /// # Errors
    /// As [`logs`](Self::logs).
    pub async fn logs_since(
        self: &Arc<Self>,
        name: &str,
        since: u64,
    ) -> Result<impl Stream<Item = Result<LogLine, EngineError>> + Send + use<>, EngineError> {
        let since = i32::try_from(since).unwrap_or(i32::MAX);
        let options = LogsOptionsBuilder::new().follow(true).since(since);
        self.read_logs(name, options, true).await
    }

    async fn read_logs(
        self: &Arc<Self>,
        name: &str,
        options: LogsOptionsBuilder,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<LogLine, EngineError>> + Send + use<>, EngineError> {
        let about = About::container(Operation::ReadLogs, name);
        if self.glance(name).await?.is_none() {
            return Err(about.error(Cause::NotFound));
        }
        let options = options.stdout(true).stderr(true).build();
        let output = self.client(&about)?.logs(name, Some(options)).boxed();
        let reading = Reading {
            docker: Arc::clone(self),
            about,
            output,
            follow,
            lines: Some(Lines::default()),
        };
        Ok(stream::unfold(reading, Reading::next).flat_map(stream::iter))
    }

    /// The last lines of a container, oldest first; for reports of its end.
    ///
    /// # Errors
    /// When there is no such container or the engine does not answer.
    pub async fn last_lines(
        self: &Arc<Self>,
        name: &str,
        lines: u32,
    ) -> Result<Vec<LogLine>, EngineError> {
        let stream = self.logs(name, Some(lines), false).await?;
        let mut found = Vec::new();
        let mut stream = std::pin::pin!(stream);
        while let Some(line) = stream.next().await {
            found.push(line?);
        }
        Ok(found)
    }
}

struct Reading {
    docker: Arc<Docker>,
    about: About,
    output: stream::BoxStream<'static, Result<LogOutput, bollard::errors::Error>>,
    follow: bool,
    /// `None`: the end has been told.
    lines: Option<Lines>,
}

impl Reading {
    async fn next(mut self) -> Option<(Vec<Result<LogLine, EngineError>>, Self)> {
        let mut lines = self.lines.take()?;
        let limit = self.docker.settings.timeout;
        let part = if self.follow {
            self.output.next().await
        } else {
            match timeout(limit, self.output.next()).await {
                Ok(part) => part,
                Err(_) => {
                    let error = self.about.error(Cause::TimedOut { limit });
                    return Some((vec![Err(error)], self));
                }
            }
        };
        let told = match part {
            None => lines.rest().into_iter().map(Ok).collect(),
            Some(Err(error)) => {
                let cause = self.docker.meaning(&self.about, error);
                let error = self.docker.noted(&self.about, self.about.error(cause));
                let rest = lines.rest().into_iter().map(Ok);
                rest.chain([Err(error)]).collect()
            }
            Some(Ok(part)) => {
                let told = lines.add(part).into_iter().map(Ok).collect();
                self.lines = Some(lines);
                told
            }
        };
        Some((told, self))
    }
}

/// Parts of lines, of each output its own.
#[derive(Debug, Default)]
struct Lines {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Lines {
    /// The lines that this part completes.
    fn add(&mut self, part: LogOutput) -> Vec<LogLine> {
        let (stream, begun, part): (_, _, Bytes) = match part {
            LogOutput::StdErr { message } => (LogStream::Stderr, &mut self.stderr, message),
            LogOutput::StdOut { message }
            | LogOutput::StdIn { message }
            | LogOutput::Console { message } => (LogStream::Stdout, &mut self.stdout, message),
        };
        let mut lines = Vec::new();
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            begun.extend_from_slice(piece);
            if piece.ends_with(b"\n") || begun.len() >= LINE {
                lines.push(line(stream, begun));
                begun.clear();
            }
        }
        lines
    }

    /// What has no line end yet, at the end.
    fn rest(self) -> Vec<LogLine> {
        let rest = [
            (LogStream::Stdout, self.stdout),
            (LogStream::Stderr, self.stderr),
        ];
        rest.into_iter()
            .filter(|(_, begun)| !begun.is_empty())
            .map(|(stream, begun)| line(stream, &begun))
            .collect()
    }
}

fn line(stream: LogStream, bytes: &[u8]) -> LogLine {
    let text = String::from_utf8_lossy(bytes);
    LogLine {
        stream,
        text: text.trim_end_matches(['\n', '\r']).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &[u8]) -> LogOutput {
        LogOutput::StdOut {
            message: Bytes::copy_from_slice(text),
        }
    }

    fn texts(lines: Vec<LogLine>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn parts_become_lines_and_outputs_stay_apart() {
        let mut lines = Lines::default();
        assert!(lines.add(out(b"one")).is_empty());
        let error = LogOutput::StdErr {
            message: Bytes::from_static(b"oh\r\n"),
        };
        assert_eq!(
            lines.add(error),
            [LogLine {
                stream: LogStream::Stderr,
                text: "oh".into()
            }]
        );
        assert_eq!(
            texts(lines.add(out(b" more\ntwo\nthr"))),
            ["one more", "two"]
        );
        assert_eq!(texts(lines.rest()), ["thr"]);
    }

    #[test]
    fn a_line_without_end_is_given_in_parts_and_bad_text_is_replaced() {
        let mut lines = Lines::default();
        let mut given = 0;
        for _ in 0..20 {
            given += lines.add(out(&[b'x'; 16 << 10])).len();
            assert!(lines.stdout.len() < LINE);
        }
        assert_eq!(given, 5);
        assert_eq!(texts(lines.add(out(b"\n"))), [""]);
        assert_eq!(texts(lines.add(out(b"\xff\xfe!\n"))), ["\u{fffd}\u{fffd}!"]);
    }
}
