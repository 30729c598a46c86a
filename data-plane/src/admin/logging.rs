//! `/logging`.

use http::StatusCode;

use super::{Page, Params, text};
use crate::logging::Error;
use crate::server::Main;

pub(super) fn page(main: &Main, params: &Params) -> Page {
    if let Err(said) = change(main, params) {
        return text(StatusCode::BAD_REQUEST, format!("error: {said}\n{}", list(main)));
    }
    text(StatusCode::OK, list(main))
}

fn change(main: &Main, params: &Params) -> Result<(), String> {
    let mut levels = main.levels.borrow().clone();
    let said = |error: Error| error.to_string();
    for (name, value) in params.iter() {
        match name {
            "level" => levels.set_all(value).map_err(said)?,
            "paths" => {
                for pair in value.split(',') {
                    let (name, level) =
                        pair.split_once(':').ok_or_else(|| Error::Pair(pair.to_owned()).to_string())?;
                    levels.set(name, level).map_err(said)?;
                }
            }
            component => levels.set(component, value).map_err(said)?,
        }
    }
    if params.iter().next().is_some() {
        if let Some(log) = &main.log {
            log.set_filter(&levels.filter()).map_err(|error| error.to_string())?;
        }
        *main.levels.borrow_mut() = levels;
    }
    Ok(())
}

fn list(main: &Main) -> String {
    let levels = main.levels.borrow();
    let lines = levels.list().into_iter().map(|(name, level)| {
        let level = format!("{level:?}").to_lowercase();
        format!("  {name}: {level}\n")
    });
    format!("active loggers:\n{}\n", lines.collect::<String>())
}
