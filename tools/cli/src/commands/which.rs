//! Which lab a command is about: one flag, and one variable, for all of them.

use clap::Args;

/// Which lab.
#[derive(Args, Clone, Debug, Default)]
pub struct Which {
    /// Name of the lab [default: default].
    #[arg(long, value_name = "NAME", env = VARIABLE, value_parser = name)]
    lab: Option<String>,
}

/// Names the lab where no flag does.
const VARIABLE: &str = "HEDDLE_LAB";

/// An empty variable names no lab. An empty flag is a script's variable that was never set: the lab of somebody else would
/// be meant.
fn name(text: &str) -> Result<String, &'static str> {
    let is_of_the_variable = || std::env::var_os(VARIABLE).is_some_and(|it| it.is_empty());
    if text.is_empty() && !is_of_the_variable() {
        return Err("it names no lab; without --lab the lab `default` is meant");
    }
    Ok(text.to_owned())
}

impl Which {
    /// The lab of this name.
    pub(super) fn of(name: &str) -> Self {
        Self {
            lab: Some(name.to_owned()),
        }
    }

    /// The lab that was named; an empty name, as of an empty HEDDLE_LAB, names none.
    pub(super) fn named(&self) -> Option<&str> {
        self.lab.as_deref().filter(|name| !name.is_empty())
    }

    /// The lab that is meant.
    pub(super) fn or_default(&self) -> &str {
        self.named().unwrap_or("default")
    }
}

#[cfg(test)]
mod tests {
    use super::Which;

    #[test]
    fn an_empty_name_names_no_lab() {
        for (which, named, meant) in [
            (Which::default(), None, "default"),
            (Which::of(""), None, "default"),
            (Which::of("second"), Some("second"), "second"),
        ] {
            assert_eq!((which.named(), which.or_default()), (named, meant));
        }
    }
}
