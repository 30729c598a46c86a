//! One Lua VM: how it is set up, what a script in it may use, and what ends a script that uses more.

use std::cell::Cell;
use std::fmt::Display;
use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{
    Error, Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Thread, Value, VmState,
};
use sail_proxy_config::http_filter::lua::Script;

use super::handle;
use crate::clock;

/// So many instructions a script may run in one go; then whoever else the worker serves has waited long enough.
const INSTRUCTIONS: u64 = 50_000_000;

/// After so many instructions the count is looked at.
const STEP: u32 = 10_000;

/// As much memory as one VM may have.
const MEMORY: usize = 128 * 1024 * 1024;

/// A chunk's name need not be longer: errors show its first line.
const NAME: usize = 200;

const PRELUDE: &str = include_str!("prelude.lua");

/// The registry's name of the methods that are written in Lua.
const METHODS: &str = "sail.methods";

/// Loads a script to see that it can be.
pub(crate) fn check(script: &Script) -> Result<(), String> {
    Vm::load(script).map(drop)
}

/// What a script has used since it was last resumed.
#[derive(Default)]
struct Budget {
    instructions: Cell<u64>,
    interrupted: Cell<bool>,
}

impl Budget {
    fn begin(&self) {
        self.instructions.set(0);
        self.interrupted.set(false);
    }

    fn step(&self) -> mlua::Result<VmState> {
        self.instructions.set(self.instructions.get() + u64::from(STEP));
        if self.instructions.get() <= INSTRUCTIONS {
            return Ok(VmState::Continue);
        }
        self.interrupted.set(true);
        Err(Error::runtime(format!(
            "the script was stopped: it ran more than {INSTRUCTIONS} instructions without a pause"
        )))
    }
}

/// A VM in which a script was loaded.
pub(super) struct Vm {
    pub(super) lua: Lua,
    budget: Rc<Budget>,
    token: Table,
    pub(super) on_request: Option<Function>,
    pub(super) on_response: Option<Function>,
}

/// What became of a script that was resumed.
pub(super) enum Step {
    Ended,
    /// It waits for what it asked for.
    Paused,
    Failed(String),
}

impl Vm {
    /// A VM with this script in it; the error is Lua's.
    pub(super) fn load(script: &Script) -> Result<Self, String> {
        Self::try_load(script).map_err(|error| format!("script load error: {}", message(&error)))
    }

    fn try_load(script: &Script) -> mlua::Result<Self> {
        let lua = Lua::new_with(StdLib::ALL_SAFE, LuaOptions::default())?;
        lua.set_memory_limit(MEMORY)?;
        let budget = Rc::new(Budget::default());
        let token = lua.create_table()?;
        let methods: Table =
            lua.load(PRELUDE).set_name("=envoy").call((native(&lua, &budget)?, token.clone()))?;
        lua.set_named_registry_value(METHODS, methods)?;
        if !script.package_paths.is_empty() {
            let package: Table = lua.globals().get("package")?;
            let built_in: String = package.get("path")?;
            package.set("path", format!("{};{built_in}", script.package_paths.join(";")))?;
        }
        let counted = budget.clone();
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(STEP), move |_, _| counted.step())?;
        lua.load(&*script.code).set_name(chunk_name(&script.code)).set_mode(ChunkMode::Text).exec()?;
        let globals = lua.globals();
        let function = |name: &str| match globals.get::<Value>(name)? {
            Value::Function(function) => Ok::<_, Error>(Some(function)),
            _ => Ok(None),
        };
        let (on_request, on_response) = (function("envoy_on_request")?, function("envoy_on_response")?);
        drop(globals);
        Ok(Self { lua, budget, token, on_request, on_response })
    }

    /// Runs a script until it ends or pauses.
    pub(super) fn resume(&self, thread: &Thread, input: MultiValue) -> Step {
        self.budget.begin();
        let resumed = thread.resume::<MultiValue>(input);
        clock::passed();
        match resumed {
            Ok(values) if thread.is_resumable() => {
                if matches!(values.front(), Some(Value::Table(first)) if *first == self.token) {
                    Step::Paused
                } else {
                    Step::Failed("script performed an unexpected yield".to_owned())
                }
            }
            Ok(_) => Step::Ended,
            Err(error) => {
                if matches!(error, Error::MemoryError(_)) {
                    // What the script held is free now; those that come after it find room.
                    let _ = self.lua.gc_collect();
                }
                Step::Failed(message(&error))
            }
        }
    }
}

/// The methods that are written in Lua.
pub(super) fn methods(lua: &Lua) -> mlua::Result<Table> {
    lua.named_registry_value(METHODS)
}

/// What Rust offers to the prelude.
fn native(lua: &Lua, budget: &Rc<Budget>) -> mlua::Result<Table> {
    let native = lua.create_table()?;
    let budget = budget.clone();
    native.set("interrupted", lua.create_function(move |_, ()| Ok(budget.interrupted.get()))?)?;
    let text = lua.create_function(|lua, value: Value| match value {
        Value::Error(error) => lua.create_string(message(&error)).map(Value::String),
        value => Ok(value),
    })?;
    native.set("text", text)?;
    let traceback = lua.create_function(|lua, text: Option<String>| lua.traceback(text.as_deref(), 1))?;
    native.set("traceback", traceback)?;
    handle::waiting(lua, &native)?;
    Ok(native)
}

/// As Lua names text that came from nowhere else.
fn chunk_name(code: &str) -> &str {
    let code = code.split('\0').next().unwrap_or_default();
    let end = (0..=code.len().min(NAME)).rev().find(|end| code.is_char_boundary(*end)).unwrap_or(0);
    &code[..end]
}

/// What an error says, as Lua would say it.
pub(super) fn message(error: &Error) -> String {
    let text = match error {
        Error::CallbackError { cause, .. } => return message(cause),
        Error::RuntimeError(text) | Error::SyntaxError { message: text, .. } => text.clone(),
        Error::MemoryError(_) => format!("not enough memory: a script may have {} MiB", MEMORY >> 20),
        other => other.to_string(),
    };
    let end = text.find("\nstack traceback:").unwrap_or(text.len());
    // An error that is a table or the like has no words.
    match &text[..end] {
        "" => "unspecified lua error".to_owned(),
        text => text.to_owned(),
    }
}

/// A mistake of the script's, with where it stands: so many calls up from the function that found it.
pub(super) fn mistake(lua: &Lua, level: usize, what: impl Display) -> Error {
    let place = lua.inspect_stack(level, |debug| {
        let source = debug.source().short_src?.into_owned();
        Some(format!("{source}:{}: ", debug.current_line()?))
    });
    Error::runtime(format!("{}{what}", place.flatten().unwrap_or_default()))
}
