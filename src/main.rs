//! Arguments to a running process. Everything else is in the library.

use std::io::Write;
use std::process::ExitCode;

use corelane::cli::{self, Command, Output};
use corelane::machine::{self, Machine};
use corelane::provider::Beginning;
use corelane::{config, control, engine, telemetry, upgrade_command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cpus = machine::cpus();
    let output = match cli::parse() {
        Command::Run(run) => match run.source().and_then(begun) {
            Ok((beginning, source)) => return serve(&beginning, source, cpus),
            Err(output) => output,
        },
        Command::Reverse(reverse) => match begun(reverse.source()) {
            Ok((beginning, source)) => return serve(&beginning, source, cpus),
            Err(output) => output,
        },
        Command::Check(check) => cli::check(&check, &Machine::this()),
        Command::PrintConfig(asked) => cli::print_config(&asked),
        Command::Explain { key } => cli::explain(key.as_deref()),
        Command::Upgrade(asked) => upgrade_command::upgrade(&asked),
        Command::Version => cli::version(),
    };
    say(&output)
}

fn begun(source: cli::Source) -> Result<(Beginning, cli::Source), Output> {
    Ok((source.first()?, source))
}

fn serve(beginning: &Beginning, source: cli::Source, cpus: usize) -> ExitCode {
    let document = &beginning.document;
    let plan = match config::compile(document, 1, cpus) {
        Ok(plan) => plan,
        Err(errors) => return fail(&errors.to_string(), 2),
    };
    if let Err(error) = telemetry::process_log::start(plan.log_level, engine::wall_clock) {
        return fail(&format!("cannot start the log: {error}\n"), 1);
    }
    // More cores than CPUs is said by the start; the process's log escapes newlines: one line each.
    let mut warnings = config::warnings(document, usize::MAX).as_warnings();
    warnings.push_str(&config::core_warnings(document, plan.cores).as_warnings());
    warnings.push_str(&config::environment_warnings(document).as_warnings());
    warnings.push_str(&machine::tls_file_warnings(document));
    let notes = beginning.notes.iter().map(String::as_str);
    warnings.lines().chain(notes).for_each(|warning| log::warn!("{warning}"));
    match control::run(plan, source, beginning) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("corelane: {error}\n"), 1),
    }
}

fn say(output: &Output) -> ExitCode {
    // A reader that has gone is no error of ours.
    let _ = std::io::stdout().write_all(output.out.as_bytes());
    let _ = std::io::stderr().write_all(output.err.as_bytes());
    ExitCode::from(output.code)
}

fn fail(text: &str, code: u8) -> ExitCode {
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}
