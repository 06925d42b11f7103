//! `heddle observe`: flows of one node or of all nodes of a lab, in the order of their times.

use super::agents::{Agent, Agents, Target};
use super::client::Answers;
use super::flags::FilterFlags;
use super::{Environment, note, warn};
use crate::failure::{Failure, NO_DATA, USAGE};
use clap::{Args, ValueEnum};
use heddle_flow::print::{Form, Style};
use heddle_flow::{FilterFlag, Line, NodeState, NodeStatus, ObserveRequest, Response, Timestamp};
use heddle_rpc::node::OBSERVE;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Flows shown when nothing else is asked for, as in Hubble.
const DEFAULT_LAST: u64 = 20;
/// How long a followed flow waits for older ones of other nodes.
const REORDER: Duration = Duration::from_millis(50);
/// Flows that wait at most.
const MAX_HELD: usize = 4_096;

/// How flows are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Printed {
    /// One line each.
    Compact,
    /// A block of lines each.
    Dict,
    /// Columns.
    Table,
    /// One Hubble GetFlowsResponse JSON object per line.
    #[value(alias = "json")]
    Jsonpb,
}

/// `heddle observe`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Go on with flows as they happen.
    #[arg(short, long)]
    follow: bool,
    /// The last N flows [default: 20, unless --since, --until or --follow is given].
    #[arg(long, value_name = "N", conflicts_with_all = ["first", "all"])]
    last: Option<u64>,
    /// The first N flows that are remembered.
    #[arg(long, value_name = "N", conflicts_with_all = ["all", "follow"])]
    first: Option<u64>,
    /// All flows that are remembered.
    #[arg(long)]
    all: bool,
    /// Flows since then: a time (2026-11-21T08:30:00Z) or an age (90s, 5m, 1h30m).
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Flows until then: a time or an age.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// A pod without a namespace means every namespace's.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "compact")]
    output: Printed,
    /// Also print the reporting node's name.
    #[arg(long)]
    print_node_name: bool,
    #[command(flatten)]
    filters: FilterFlags,
}

/// A point in time as it was given.
#[derive(Clone, Copy)]
enum Point {
    /// This one.
    Time(Timestamp),
    /// This many nanoseconds ago.
    Age(u64),
}

impl Point {
    fn read(flag: &'static str, text: &str) -> Result<Self, Failure> {
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        age(text).map(Self::Age).ok_or_else(|| {
            Failure::new(
                "usage/bad-time",
                format!("{flag} {text:?} is neither a time nor an age"),
            )
            .field(flag)
            .help("a time is like 2026-11-21T08:30:00Z, an age like 90s, 5m or 1h30m")
            .exit(USAGE)
        })
    }

    /// The time that it means at this moment.
    const fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::Age(age) => now.earlier(age),
        }
    }
}

/// Nanoseconds of an age like `1h30m`.
fn age(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at_checked(letters)?;
        let scale: u64 = match unit {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(scale)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// What is asked for, but for what depends on whose answer it is: ages count back from what that calls now.
struct Asked {
    request: ObserveRequest,
    since: Option<Point>,
    until: Option<Point>,
}

impl Asked {
    fn at(self, now: Timestamp) -> Result<ObserveRequest, Failure> {
        let [since, until] = [self.since, self.until].map(|it| it.map(|point| point.at(now)));
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            return Err(
                Failure::new("usage/bad-time", "--since is after --until".to_owned())
                    .field("--since")
                    .exit(USAGE),
            );
        }
        Ok(ObserveRequest {
            since,
            until,
            ..self.request
        })
    }
}

impl Arguments {
    fn asked(&self) -> Result<Asked, Failure> {
        let mut builder = self.filters.builder();
        builder.all_namespaces(self.all_namespaces);
        // With a socket there is nothing to find by a node's name, so it filters.
        if let (Some(node), true) = (&self.target.node, self.target.socket.is_some()) {
            builder.add(FilterFlag::NodeName, node, false);
        }
        let filter = builder.build().map_err(|error| {
            Failure::new("observe/bad-filter", error.to_string())
                .field(error.field)
                .help("`heddle observe --help` lists the filters and their values")
                .exit(USAGE)
        })?;
        let point = |flag, text: &Option<String>| {
            let text = text.as_deref();
            text.map(|text| Point::read(flag, text)).transpose()
        };
        let (since, until) = (
            point("--since", &self.since)?,
            point("--until", &self.until)?,
        );
        let number = match (self.last, self.first, self.all) {
            (Some(number), _, _) | (None, Some(number), _) => Some(number),
            (None, None, true) => Some(u64::MAX),
            _ if self.follow || since.is_some() || until.is_some() => None,
            _ => Some(DEFAULT_LAST),
        };
        let request = ObserveRequest {
            number,
            first: self.first.is_some(),
            follow: self.follow,
            whitelist: filter.whitelist,
            blacklist: filter.blacklist,
            ..ObserveRequest::default()
        };
        Ok(Asked {
            request,
            since,
            until,
        })
    }
}

/// Prints responses in the form that was asked for.
struct Printer<'a, 'b> {
    style: Style,
    around: &'a mut Environment<'b>,
    /// The reader has gone away.
    closed: bool,
}

impl Printer<'_, '_> {
    fn line(&mut self, text: &str) -> Result<(), Failure> {
        match writeln!(self.around.out, "{text}").and_then(|()| self.around.out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::new(
                "output/failed",
                format!("flows could not be written: {error}"),
            )),
            Ok(()) => Ok(()),
        }
    }

    fn response(&mut self, response: &Response) -> Result<(), Failure> {
        let text = self.style.write(response);
        self.line(&text)
    }

    /// A node that gives no flows (any more): a line of its own for machines, a warning for people.
    fn absent(
        &mut self,
        agent: &Agent,
        state: NodeState,
        failure: &Failure,
    ) -> Result<(), Failure> {
        if self.style.form == Form::Jsonpb {
            let node = agent.node.clone().unwrap_or_default();
            return self.response(&Response {
                line: Line::NodeStatus(NodeStatus {
                    state_change: state,
                    node_names: vec![node.clone()],
                    message: failure.message.clone(),
                }),
                node_name: node,
                time: agent.now(),
            });
        }
        warn(
            self.around,
            &format!("{} ({})", failure.message, failure.code),
        );
        Ok(())
    }
}

/// What a node's reader thread reports.
enum News {
    Response(Box<Response>),
    /// The stream ended; with a failure when it should not have.
    End(usize, Option<Failure>),
}

/// Runs the command and gives its exit code.
pub(super) fn run(arguments: Arguments, around: &mut Environment<'_>) -> Result<u8, Failure> {
    let json = arguments.output == Printed::Jsonpb;
    observe(&arguments, around).map_err(|failure| failure.json(json))
}

fn observe(arguments: &Arguments, around: &mut Environment<'_>) -> Result<u8, Failure> {
    let asked = arguments.asked()?;
    let agents = arguments.target.find(&around.runtime)?;
    let several = matches!(&agents, Agents::Lab(agents) if agents.len() > 1);
    let agents = agents.into_vec();
    // All are of one dump, or all run.
    let now = agents.first().map_or_else(Timestamp::default, Agent::now);
    let request = asked.at(now)?;
    let style = Style {
        form: match arguments.output {
            Printed::Compact => Form::Compact,
            Printed::Dict => Form::Dict,
            Printed::Table => Form::Table,
            Printed::Jsonpb => Form::Jsonpb,
        },
        color: around.color,
        node: arguments.print_node_name,
    };
    let mut printer = Printer {
        style,
        around,
        closed: false,
    };
    let params = serde_json::to_value(&request).unwrap_or_default();
    let (sender, news) = sync_channel(MAX_HELD);
    let mut readers = 0;
    let mut first_failure = None;
    let mut absent = Vec::new();
    for (index, agent) in agents.iter().enumerate() {
        match Answers::begin(agent, OBSERVE, &params) {
            Ok(mut answers) => {
                if request.follow {
                    answers.wait_forever();
                }
                if let Some(text) = answers.note() {
                    note(printer.around, text);
                }
                let sender = sender.clone();
                // Ends with the stream, or with the process.
                std::thread::spawn(move || read(index, answers, &sender));
                readers += 1;
            }
            Err(failure) => absent.push((index, failure)),
        }
    }
    drop(sender);
    if readers == 0
        && let Some((_, failure)) = absent.pop()
    {
        return Err(failure);
    }
    if let Some(header) = style.header() {
        printer.line(&header)?;
    }
    let mut exit = 0;
    for (index, failure) in absent {
        exit = NO_DATA;
        if let Some(agent) = agents.get(index) {
            printer.absent(agent, NodeState::NodeUnavailable, &failure)?;
        }
    }
    let mut ended = 0;
    let mut end = |index: usize, failure: Option<Failure>, printer: &mut Printer<'_, '_>| {
        ended += 1;
        let (Some(failure), Some(agent)) = (failure, agents.get(index)) else {
            return Ok(());
        };
        if ended == readers && !several {
            first_failure = Some(failure);
            return Ok(());
        }
        exit = NO_DATA;
        printer.absent(agent, NodeState::NodeGone, &failure)
    };
    if request.follow {
        follow(&news, several, &mut printer, &mut end)?;
    } else {
        past(&news, &request, &mut printer, &mut end)?;
    }
    match first_failure {
        Some(failure) if !printer.closed => Err(failure),
        _ => Ok(exit),
    }
}

fn read(index: usize, mut answers: Answers, sender: &SyncSender<News>) {
    loop {
        let news = match answers.next() {
            Ok(Some(value)) => match serde_json::from_value::<Response>(value) {
                Ok(response) => News::Response(Box::new(response)),
                Err(error) => News::End(
                    index,
                    Some(
                        Failure::new(
                            "agent/broken-answer",
                            format!("a flow cannot be understood: {error}"),
                        )
                        .exit(NO_DATA),
                    ),
                ),
            },
            Ok(None) => News::End(index, None),
            Err(failure) => News::End(index, Some(failure)),
        };
        let last = matches!(news, News::End(..));
        // Nobody listens any more: the command is over.
        if sender.send(news).is_err() || last {
            return;
        }
    }
}

type OnEnd<'e> =
    dyn FnMut(usize, Option<Failure>, &mut Printer<'_, '_>) -> Result<(), Failure> + 'e;

/// Collects every node's past, sorts it and prints the part that was asked for.
fn past(
    news: &Receiver<News>,
    request: &ObserveRequest,
    printer: &mut Printer<'_, '_>,
    end: &mut OnEnd<'_>,
) -> Result<(), Failure> {
    let mut responses = Vec::new();
    // Ends when every reader has.
    for news in news {
        match news {
            News::Response(response) => responses.push(*response),
            News::End(index, failure) => end(index, failure, printer)?,
        }
    }
    responses.sort_by_key(|response| response.time);
    for response in cut(responses, request) {
        printer.response(&response)?;
        if printer.closed {
            break;
        }
    }
    Ok(())
}

/// The first or last `number` flows of all nodes together; each node gave as many.
fn cut(mut responses: Vec<Response>, request: &ObserveRequest) -> Vec<Response> {
    let Some(number) = request.number else {
        return responses;
    };
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let mut flows = responses
        .iter()
        .enumerate()
        .filter(|(_, response)| response.flow().is_some())
        .map(|(index, _)| index);
    if request.first {
        if let Some(end) = flows.nth(number) {
            responses.truncate(end);
        }
    } else if let Some(start) = flows.rev().nth(number) {
        responses.drain(..=start);
    }
    responses
}

/// Prints flows as they come. Flows of several nodes wait a moment for older ones of the others.
fn follow(
    news: &Receiver<News>,
    several: bool,
    printer: &mut Printer<'_, '_>,
    end: &mut OnEnd<'_>,
) -> Result<(), Failure> {
    let mut held: Vec<(Instant, Box<Response>)> = Vec::new();
    let wait = if several { REORDER } else { Duration::ZERO };
    loop {
        let now = Instant::now();
        held.sort_by_key(|(_, response)| response.time);
        let due = held
            .iter()
            .position(|(due, _)| *due > now)
            .unwrap_or(held.len())
            .max(held.len().saturating_sub(MAX_HELD));
        for (_, response) in held.drain(..due) {
            printer.response(&response)?;
        }
        if printer.closed {
            return Ok(());
        }
        let received = match held.first() {
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((due, _)) => news.recv_timeout(due.saturating_duration_since(now)),
        };
        match received {
            Ok(News::Response(response)) => held.push((now + wait, response)),
            Ok(News::End(index, failure)) => end(index, failure, printer)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                for (_, response) in held {
                    printer.response(&response)?;
                }
                return Ok(());
            }
        }
    }
}

/// What the agent is asked, for tests.
#[cfg(test)]
pub(super) fn params_of(
    arguments: &Arguments,
    now: Timestamp,
) -> Result<serde_json::Value, Failure> {
    let request = arguments.asked()?.at(now)?;
    Ok(serde_json::to_value(request).unwrap())
}
