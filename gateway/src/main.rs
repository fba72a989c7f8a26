//! `portolan`: the gateway's command line.
//!
//! What it does is elsewhere: [`app`] wires a gateway together, [`settings`] says how it runs, [`admin`] shows what it
//! does, [`check`] judges a folder of manifests, [`quickstart`] shows all of it without a Kubernetes cluster.

mod admin;
mod app;
mod certificate;
mod check;
mod file_setting;
mod live;
mod open_files;
mod origin;
mod quickstart;
mod settings;
mod snapshot;
mod terminal;
mod translated;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use settings::{ConfigFile, Flags};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let outcome = match matches.subcommand() {
        Some(("run", matches)) => run(matches),
        Some(("check", matches)) => check::run(matches),
        Some(("quickstart", matches)) => quickstart::run(matches),
        Some(("settings", _)) => {
            terminal::print(&settings::markdown());
            Ok(ExitCode::SUCCESS)
        }
        _ => unreachable!("clap requires one of the subcommands above"),
    };
    outcome.unwrap_or_else(|error| {
        terminal::complain(&format!("portolan: {error:#}"));
        ExitCode::FAILURE
    })
}

fn command() -> Command {
    Command::new("portolan")
        .about("A Kubernetes-native service-discovery gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Flags::declare(
                Command::new("run")
                    .about("Run the gateway on a Kubernetes cluster, or on a folder of manifests"),
            )
            .arg(config_argument()),
        )
        .subcommand(check::command())
        .subcommand(quickstart::command())
        .subcommand(
            Command::new("settings").about("Print docs/configuration.md, which describes every setting"),
        )
}

fn config_argument() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Read settings from this YAML file [env: PORTOLAN_CONFIG]")
}

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let said = live::Said { flags: Flags::from_matches(matches), file: config_file(matches)? };
    match settings::resolve(&said.flags, &variable, &said.file) {
        Ok(settings) => app::run(settings, said),
        Err(problems) => Ok(refuse(&problems)),
    }
}

fn config_file(matches: &ArgMatches) -> anyhow::Result<ConfigFile> {
    let path = matches
        .get_one::<PathBuf>("config")
        .cloned()
        .or_else(|| variable("PORTOLAN_CONFIG").map(PathBuf::from));
    match path {
        Some(path) => ConfigFile::read(&path).map_err(|problem| anyhow::anyhow!("{problem}")),
        None => Ok(ConfigFile::default()),
    }
}

fn refuse(problems: &[settings::Problem]) -> ExitCode {
    for problem in problems {
        terminal::complain(&format!("portolan: {problem}"));
    }
    terminal::complain("portolan: nothing was started; `portolan run --help` lists the settings");
    ExitCode::from(2)
}

/// The one place that reads the environment.
#[expect(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
