//! A new configuration made ready beside the control core: everything about it that may take long,
//! or fail.

use std::path::PathBuf;

use crate::cli::Source;
use crate::config::{self, Syntax};
use crate::control::inherited::Inherited;
use crate::control::ports::{Bound, Held};
use crate::control::reload::Refused;
use crate::control::tls::Ingredients;
use crate::control::trigger::Title;
use crate::control::{exporters, start};
use crate::engine::Shared;
use crate::events::publisher::{Files, Opened};
use crate::machine;
use crate::plan::{Collector, Plan, User};
use crate::tls::material::Material;
use crate::tls::setup::Setup;

/// Everything that can fail has not.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) syntax: Syntax,
    pub(super) text: String,
    pub(super) bound: Bound,
    pub(super) logs: Opened,
    pub(super) spans: exporters::Change,
    /// By core.
    pub(super) tls: Vec<Setup>,
    /// Of what these were made of.
    pub(super) tls_turn: u64,
    /// Of the material that was in use before its files were read.
    pub(super) material_turn: u64,
    pub(super) warnings: Vec<String>,
}

/// What preparing needs to know, on another thread.
pub(super) struct Ground {
    pub(super) source: Source,
    pub(super) held: Held,
    /// That are open.
    pub(super) logs: Files,
    pub(super) collectors: Vec<Collector>,
    pub(super) version: u64,
    pub(super) cores: usize,
    pub(super) user: Option<User>,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) open_files: u64,
    pub(super) tls: Ingredients,
    /// In use, and its turn.
    pub(super) material: Shared<Material>,
    pub(super) material_turn: u64,
}

/// `used`: what is in use of certificates.
pub(super) fn compile(
    source: &Source,
    used: &Material,
    title: &Title,
    syntax: Syntax,
    text: &str,
    version: u64,
) -> Result<(Plan, Vec<String>), Refused> {
    let refused = |errors| Refused::Configuration(title.placed(errors));
    let document = source.document_beside(used, &title.name, syntax, text).map_err(refused)?;
    let plan = config::compile(&document, version, machine::cpus()).map_err(refused)?;
    let warnings = config::warnings(&document, usize::MAX);
    let mut warned = title.placed(warnings).as_warnings();
    let of_cores = config::core_warnings(&document, plan.cores);
    warned.push_str(&title.placed(of_cores).as_warnings());
    warned.push_str(&config::environment_warnings(&document).as_warnings());
    Ok((plan, warned.lines().map(str::to_owned).collect()))
}

/// Everything that may take long or fail, beside the control core.
pub(super) fn prepare(
    ground: &Ground,
    title: &Title,
    syntax: Syntax,
    text: String,
) -> Result<Prepared, Refused> {
    let (source, used) = (&ground.source, &ground.material);
    let (mut plan, mut warnings) = compile(source, used, title, syntax, &text, ground.version)?;
    if plan.cores != ground.cores {
        warnings.push(format!(
            "cores: {} are asked for, {} go on running: their number changes with a restart only",
            plan.cores, ground.cores
        ));
        plan.cores = ground.cores;
    }
    if plan.user != ground.user {
        warnings.push("user, group: the process stays who it is, until a restart".to_owned());
        plan.user.clone_from(&ground.user);
    }
    if plan.pid_file != ground.pid_file {
        warnings.push("pid_file: it stays where it is, until a restart".to_owned());
        plan.pid_file.clone_from(&ground.pid_file);
    }
    start::complete(&mut plan, ground.open_files);
    let tls = ground.tls.setups(ground.cores, &plan).map_err(Refused::Impossible)?;
    let bound = ground
        .held
        .bind(&mut plan, &mut Inherited::default())
        .map_err(|error| Refused::Impossible(error.to_string()))?;
    let logs = Files::of(&plan)
        .open(&ground.logs, start::CLOCKS)
        .map_err(|error| Refused::Impossible(error.to_string()))?;
    let spans = exporters::start(&plan, &ground.collectors).map_err(Refused::Impossible)?;
    let tls_turn = ground.tls.turn;
    let material_turn = ground.material_turn;
    Ok(Prepared { plan, syntax, text, bound, logs, spans, tls, tls_turn, material_turn, warnings })
}
