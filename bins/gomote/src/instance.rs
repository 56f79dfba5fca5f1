//! Names of instances, abbreviated or not.

use anyhow::Context;
use buildlet_proto::client::{Client, Connect};
use buildlet_proto::coordinator::{CoordinatorClient, Instance};

use crate::exit::{NotFound, Usage};

/// Finds the instance that the user means, and the buildlet of its machine.
pub(crate) async fn find<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    name: &str,
) -> anyhow::Result<(Instance, Client<C>)> {
    let instance = choose(held(coordinator).await?, name)?;
    let buildlet = coordinator.instance(&instance.name)?;
    Ok((instance, buildlet))
}

/// Finds the instances that the user means, or all where they name none.
pub(crate) async fn find_all<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    names: &[String],
) -> anyhow::Result<Vec<Instance>> {
    let held = held(coordinator).await?;
    if names.is_empty() {
        return Ok(held);
    }
    let chosen = names.iter().map(|name| choose(held.clone(), name));
    chosen.collect()
}

async fn held<C: Connect>(coordinator: &CoordinatorClient<C>) -> anyhow::Result<Vec<Instance>> {
    coordinator
        .list()
        .await
        .context("looking for your instances")
}

fn choose(instances: Vec<Instance>, name: &str) -> anyhow::Result<Instance> {
    if let Some(exact) = instances.iter().find(|instance| instance.name == name) {
        return Ok(exact.clone());
    }
    let held = names(&instances);
    let mut matching: Vec<_> = instances
        .into_iter()
        .filter(|instance| is_short_for(name, instance))
        .collect();
    if matching.len() > 1 {
        return Err(Usage(format!("{name:?} may mean any of: {}", names(&matching))).into());
    }
    matching.pop().ok_or_else(|| {
        let next = if held.is_empty() {
            "you hold none; `gomote create TYPE` leases one".to_owned()
        } else {
            format!("you hold: {held}")
        };
        NotFound(format!(
            "there is no instance {name:?}, or its lease has ended; {next}"
        ))
        .into()
    })
}

/// Whether `name` begins or ends the instance's name; the `user-NAME-` at its beginning may be left out.
fn is_short_for(name: &str, instance: &Instance) -> bool {
    let full = instance.name.as_str();
    let own = full
        .strip_prefix(instance.user.as_str())
        .map_or(full, |own| own.trim_start_matches('-'));
    !name.is_empty() && (full.starts_with(name) || own.starts_with(name) || full.ends_with(name))
}

fn names(instances: &[Instance]) -> String {
    let names: Vec<_> = instances
        .iter()
        .map(|instance| instance.name.as_str())
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn chosen(name: &str) -> anyhow::Result<String> {
        let held = ["user-al-linux-0", "user-al-linux-01", "user-al-openbsd-0"];
        let held = held.map(|name| {
            Instance::new(
                "user-al",
                name,
                "h",
                "b",
                SystemTime::now(),
                SystemTime::now(),
            )
        });
        choose(held.into(), name).map(|instance| instance.name)
    }

    #[test]
    fn a_whole_name_is_never_ambiguous() {
        assert_eq!(chosen("user-al-linux-0").unwrap(), "user-al-linux-0");
    }

    #[test]
    fn a_beginning_or_an_end_of_one_is_enough() {
        assert_eq!(chosen("open").unwrap(), "user-al-openbsd-0");
        assert_eq!(chosen("user-al-o").unwrap(), "user-al-openbsd-0");
        assert_eq!(chosen("01").unwrap(), "user-al-linux-01");
    }

    #[test]
    fn what_two_have_in_common_is_refused() {
        let error = chosen("linux").unwrap_err();
        assert!(
            error.is::<Usage>() && error.to_string().contains("user-al-linux-01"),
            "{error}"
        );
    }

    #[test]
    fn what_none_has_is_not_found() {
        for name in ["windows", "", "-"] {
            let error = chosen(name).unwrap_err();
            assert!(
                error.is::<NotFound>() && error.to_string().contains("you hold: user-al"),
                "{error}"
            );
        }
        let error = choose(Vec::new(), "x").unwrap_err().to_string();
        assert!(error.contains("gomote create"), "{error}");
    }
}
