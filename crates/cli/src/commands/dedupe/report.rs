//! What `dedupe` prints.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use super::seen::Verdict;

/// Lines that failed and are told on standard error; of the others only the number.
const COMPLAINTS: u64 = 10;

/// Which of the answers is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Of each line its representative.
    Lines,
    /// The lines that represent themselves, as they were.
    Unique,
    /// Of each representative the lines that it represents, if there are others than itself.
    Clusters,
}

/// The answer for a line.
#[derive(Serialize)]
struct Answer {
    line: u64,
    representative: u64,
    similarity: f32,
}

#[derive(Serialize)]
struct Failure<'a> {
    line: u64,
    error: &'a str,
}

#[derive(Serialize)]
struct Cluster<'a> {
    representative: u64,
    members: &'a [Member],
}

#[derive(Serialize)]
struct Member {
    line: u64,
    similarity: f32,
}

/// How many lines there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) kept: u64,
    pub(crate) duplicates: u64,
    pub(crate) failed: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { kept, duplicates, failed } = self;
        write!(f, "{} texts: {kept} kept, {duplicates} duplicates", kept + duplicates)?;
        if *failed > 0 { write!(f, "; {failed} lines could not be read") } else { Ok(()) }
    }
}

/// Prints answers in the order of the lines.
pub(crate) struct Report {
    out: BufWriter<StdoutLock<'static>>,
    output: Output,
    /// Duplicates and what became of them, if clusters are wanted.
    members: Vec<(Verdict, u64)>,
    summary: Summary,
}

impl Report {
    /// Begins with the header of a table, if lines are printed as they were.
    pub(crate) fn new(output: Output, header: &[u8]) -> io::Result<Report> {
        let mut out = BufWriter::new(io::stdout().lock());
        if output == Output::Unique {
            write_line(&mut out, header)?;
        }
        Ok(Report { out, output, members: Vec::new(), summary: Summary::default() })
    }

    /// Adds a line, which was `raw`.
    pub(crate) fn add(&mut self, line: u64, raw: &[u8], verdict: Result<Verdict, String>) -> io::Result<()> {
        match verdict {
            Ok(verdict) => {
                let is_kept = verdict.representative() == line;
                *(if is_kept { &mut self.summary.kept } else { &mut self.summary.duplicates }) += 1;
                match self.output {
                    Output::Lines => {
                        let (representative, similarity) = (verdict.representative(), verdict.similarity());
                        write_json(&mut self.out, &Answer { line, representative, similarity })
                    }
                    Output::Unique if is_kept => write_line(&mut self.out, raw),
                    Output::Clusters if !is_kept => {
                        self.members.push((verdict, line));
                        Ok(())
                    }
                    Output::Unique | Output::Clusters => Ok(()),
                }
            }
            Err(error) => {
                self.summary.failed += 1;
                match self.output {
                    Output::Lines => write_json(&mut self.out, &Failure { line, error: &error }),
                    Output::Unique | Output::Clusters => {
                        if self.summary.failed <= COMPLAINTS {
                            eprintln!("line {line}: {error}");
                        }
                        Ok(())
                    }
                }
            }
        }
    }

    /// Lets the reader have what is there.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Prints what had to wait for the end.
    pub(crate) fn finish(mut self) -> anyhow::Result<Summary> {
        self.members.sort_unstable_by_key(|(verdict, line)| (verdict.representative(), *line));
        for cluster in self.members.chunk_by(|(a, _), (b, _)| a.representative() == b.representative()) {
            let representative = cluster.first().map_or(0, |(verdict, _)| verdict.representative());
            let member = |(verdict, line): &(Verdict, u64)| Member { line: *line, similarity: verdict.similarity() };
            let members: Vec<Member> = cluster.iter().map(member).collect();
            write_json(&mut self.out, &Cluster { representative, members: &members })?;
        }
        self.out.flush()?;
        Ok(self.summary)
    }
}

fn write_json(out: &mut impl Write, answer: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    out.write_all(b"\n")
}

/// Writes a line with its end, which the last one of a file may lack.
fn write_line(out: &mut impl Write, line: &[u8]) -> io::Result<()> {
    out.write_all(line)?;
    if line.is_empty() || line.ends_with(b"\n") { Ok(()) } else { out.write_all(b"\n") }
}
