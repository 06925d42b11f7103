//! Which lab a command is about: one flag, and one variable, for all of them.

use clap::Args;

/// Which lab.
#[derive(Args, Clone, Debug, Default)]
pub struct Which {
    /// Name of the lab [default: default].
    #[arg(long, value_name = "NAME", env = "HEDDLE_LAB")]
    lab: Option<String>,
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
