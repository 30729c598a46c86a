//! Patches of lists whose items have names: filters of all kinds, and routes.

use mesh_api::envoy_filter::{ConfigPatch, PatchOperation};
use prost::{Message, Name};

use super::{Tools, is_merge, operation};

/// An item of such a list.
pub(super) trait Item: Message + Name + Default + Clone {
    /// The type of its configuration, where it has one: configurations of two types cannot be merged.
    fn config_type(&self) -> Option<&str> {
        None
    }
}

/// Which items a patch is about.
pub(super) enum About<'a, T> {
    /// It names none: the whole list.
    List,
    /// Those for which this holds.
    Those(&'a dyn Fn(&T) -> bool),
}

impl<T> About<'_, T> {
    fn holds(&self, item: &T) -> bool {
        match self {
            Self::List => true,
            Self::Those(holds) => holds(item),
        }
    }
}

/// Applies a patch to a list. What has no place is left out: there is nothing before or after what does not exist.
pub(super) fn apply<T: Item>(
    tools: &Tools<'_>,
    list: &mut Vec<T>,
    patch: &ConfigPatch,
    about: &About<'_, T>,
) {
    let place = || match about {
        About::List => None,
        About::Those(holds) => list.iter().position(holds),
    };
    let named = matches!(about, About::Those(_));
    match operation(patch) {
        PatchOperation::Remove => list.retain(|item| !about.holds(item)),
        _ if is_merge(patch) => {
            let over = tools.value::<T>(patch);
            let fits = |item: &T| match (item.config_type(), over.as_ref().and_then(Item::config_type)) {
                (Some(own), Some(other)) => own.rsplit('/').next() == other.rsplit('/').next(),
                _ => true,
            };
            for item in list.iter_mut().filter(|item| about.holds(item) && fits(item)) {
                tools.merge(item, patch);
            }
        }
        operation => {
            let at = match operation {
                PatchOperation::Add => Some(list.len()),
                PatchOperation::InsertFirst => Some(0),
                PatchOperation::InsertBefore if named => place(),
                PatchOperation::InsertBefore => Some(0),
                PatchOperation::InsertAfter if named => place().map(|index| index + 1),
                PatchOperation::InsertAfter => Some(list.len()),
                PatchOperation::Replace => place(),
                _ => None,
            };
            let (Some(at), Some(value)) = (at, tools.value::<T>(patch)) else { return };
            if operation == PatchOperation::Replace {
                list[at] = value;
            } else {
                list.insert(at, value);
            }
        }
    }
}
