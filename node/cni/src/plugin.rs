//! From the runtime's question to what is printed.

use crate::config::NetworkConfig;
use crate::environment::{Command, Environment};
use crate::error::{CniError, codes};
use crate::result;
use crate::version::Version;
use heddle_rpc::cni::{AddParams, CheckParams, DelParams, GcParams, StatusParams};
use heddle_rpc::{ApiError, Call, CallError, Client, error_codes, pending};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What the plugin prints, and whether it succeeded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// For stdout; may be empty.
    pub output: String,
    /// Exit code 0 or 1.
    pub ok: bool,
}

impl Outcome {
    /// A failure as the specification prints it.
    pub fn failed(error: CniError, version: Option<Version>) -> Self {
        Self {
            output: error.to_json(version),
            ok: false,
        }
    }

    fn succeeded(output: Option<Value>) -> Self {
        Self {
            output: output.map_or_else(String::new, |value| format!("{value}\n")),
            ok: true,
        }
    }
}

/// Does what the runtime asks: `variable` looks up an environment variable, `input` is stdin.
pub fn run(variable: &dyn Fn(&str) -> Option<String>, input: &[u8]) -> Outcome {
    let environment = match Environment::read(variable) {
        Ok(environment) => environment,
        Err(error) => {
            // The configuration's version shapes even this error, if it can be read.
            let version = NetworkConfig::parse(input)
                .ok()
                .map(|config| config.version);
            return Outcome::failed(error, version);
        }
    };
    if environment.command == Command::Version {
        return Outcome::succeeded(Some(versions(input)));
    }
    let config = match NetworkConfig::parse(input) {
        Ok(config) => config,
        Err(error) => return Outcome::failed(error, None),
    };
    match answer(&environment, &config) {
        Ok(output) => Outcome::succeeded(output),
        Err(error) => Outcome::failed(error, Some(config.version)),
    }
}

fn versions(input: &[u8]) -> Value {
    let asked = serde_json::from_slice::<Value>(input)
        .ok()
        .and_then(|value| Some(value.get("cniVersion")?.as_str()?.to_owned()));
    json!({
        "cniVersion": asked.as_deref().unwrap_or(Version::LATEST.name()),
        "supportedVersions": Version::ALL.map(Version::name),
    })
}

fn answer(environment: &Environment, config: &NetworkConfig) -> Result<Option<Value>, CniError> {
    let since = match environment.command {
        Command::Check => Version::V0_4_0,
        Command::Gc | Command::Status => Version::V1_1_0,
        Command::Add | Command::Del | Command::Version => Version::V0_3_1,
    };
    if config.version < since {
        return Err(CniError::new(
            codes::INCOMPATIBLE_VERSION,
            format!(
                "{} exists since CNI {}, the configuration of network {} says cniVersion {}",
                environment.command.name(),
                since.name(),
                config.name,
                config.version.name()
            ),
        ));
    }
    match environment.command {
        Command::Add => add(environment, config).map(Some),
        Command::Del => delete(environment, config).map(|()| None),
        Command::Check => check(environment, config).map(|()| None),
        Command::Gc => collect(config).map(|()| None),
        Command::Status => status(config).map(|()| None),
        Command::Version => Ok(Some(versions(&[]))),
    }
}

fn add(environment: &Environment, config: &NetworkConfig) -> Result<Value, CniError> {
    let params = AddParams {
        container_id: environment.container_id.clone(),
        netns: netns(environment)?,
        interface: environment.interface.clone(),
        pod: environment.pod.clone(),
        deadline_seconds: config.deadline.as_secs(),
    };
    let attachment =
        ask_agent(config, &params).map_err(|error| explain(error, environment, config))?;
    Ok(result::render(
        &attachment,
        config.version,
        &config.dns,
        config.previous.as_ref(),
    ))
}

fn delete(environment: &Environment, config: &NetworkConfig) -> Result<(), CniError> {
    let params = DelParams {
        container_id: environment.container_id.clone(),
        interface: environment.interface.clone(),
    };
    match ask_agent(config, &params) {
        Ok(_) => Ok(()),
        // Whatever keeps the agent from doing it now, it finds the deletion in its queue later.
        Err(_) => {
            let queue = pending::directory(&config.agent_socket);
            pending::record(&queue, &params).map_err(|error| {
                CniError::new(
                    codes::IO,
                    format!(
                        "container {}: the agent did not answer, and the deletion cannot be queued in {}: {error}",
                        params.container_id,
                        queue.display()
                    ),
                )
                .details("free space on that file system or start the agent; the runtime will ask again")
            })
        }
    }
}

fn check(environment: &Environment, config: &NetworkConfig) -> Result<(), CniError> {
    let previous = config.previous.as_ref().ok_or_else(|| {
        CniError::new(
            codes::INVALID_CONFIG,
            "network configuration: field prevResult: is missing; CHECK compares with it",
        )
    })?;
    let params = CheckParams {
        container_id: environment.container_id.clone(),
        netns: netns(environment)?,
        interface: environment.interface.clone(),
        addresses: result::addresses_of(previous, &environment.interface),
    };
    ask_agent(config, &params)
        .map(drop)
        .map_err(|error| explain(error, environment, config))
}

fn collect(config: &NetworkConfig) -> Result<(), CniError> {
    // Without the list nothing is known to be gone; taking it for empty would detach every pod.
    let valid_attachments = config.valid_attachments.clone().ok_or_else(|| {
        CniError::new(
            codes::INVALID_CONFIG,
            "network configuration: field cni.dev/valid-attachments: is missing; GC removes what it does not list",
        )
    })?;
    ask_agent(config, &GcParams { valid_attachments })
        .map(drop)
        .map_err(|error| unreachable_or(error, config, codes::TRY_AGAIN, "GC"))
}

fn status(config: &NetworkConfig) -> Result<(), CniError> {
    ask_agent(config, &StatusParams {})
        .map(drop)
        .map_err(|error| unreachable_or(error, config, codes::NOT_AVAILABLE, "STATUS"))
}

fn ask_agent<C: Call>(config: &NetworkConfig, call: &C) -> Result<C::Answer, CallError> {
    Client::new(&config.agent_socket, config.deadline).call(call)
}

fn netns(environment: &Environment) -> Result<PathBuf, CniError> {
    environment.netns.clone().ok_or_else(|| {
        CniError::new(
            codes::INVALID_ENVIRONMENT,
            "environment variable CNI_NETNS: is not set",
        )
    })
}

fn explain(error: CallError, environment: &Environment, config: &NetworkConfig) -> CniError {
    let what = match &environment.pod {
        Some(pod) => format!(
            "{} of pod {}/{}",
            environment.command.name(),
            pod.namespace,
            pod.name
        ),
        None => format!(
            "{} of container {}",
            environment.command.name(),
            environment.container_id
        ),
    };
    unreachable_or(error, config, codes::TRY_AGAIN, &what)
}

/// The runtime's error; `away` is the code for an agent that is not there or not ready.
fn unreachable_or(error: CallError, config: &NetworkConfig, away: u32, what: &str) -> CniError {
    let socket = config.agent_socket.display();
    match error {
        error @ (CallError::Unreachable(_) | CallError::HungUp) => CniError::new(
            away,
            format!("{what}: the Heddle agent at {socket} cannot be reached: {error}"),
        )
        .details("start the agent of this node, or correct agentSocket in the network configuration; pods that run keep their network meanwhile"),
        CallError::Deadline(deadline) => CniError::new(
            away,
            format!(
                "{what}: the Heddle agent at {socket} did not answer within {} s",
                deadline.as_secs()
            ),
        )
        .details("see `heddle status` and the agent's log for what it waits for"),
        CallError::Malformed(reason) => CniError::new(
            codes::AGENT,
            format!("{what}: the agent's answer cannot be understood: {reason}"),
        )
        .details("plugin and agent may be of different versions; install both from one release"),
        CallError::Refused(error) => {
            let ApiError {
                code,
                message,
                help,
                ..
            } = error;
            let number = match code.as_str() {
                error_codes::NOT_READY | error_codes::TRY_AGAIN => away,
                error_codes::LIMITED if away == codes::NOT_AVAILABLE => codes::LIMITED,
                error_codes::LIMITED => codes::TRY_AGAIN,
                error_codes::NO_NAMESPACE | error_codes::INVALID => codes::INVALID_ENVIRONMENT,
                error_codes::CHECK_FAILED => codes::CHECK_FAILED,
                error_codes::POOL_EXHAUSTED => codes::NO_ADDRESS,
                _ => codes::AGENT,
            };
            CniError::new(number, format!("{what}: [{code}] {message}")).details(help)
        }
    }
}

#[cfg(test)]
mod tests;
