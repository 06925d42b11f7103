//! The filter flags of `observe`, in the order they were typed: `--not` belongs to the flag after it.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};
use heddle_flow::{FilterBuilder, FilterFlag};

const NOT: &str = "not";

/// Filter flags: (flag, value, whether `--not` stands before it).
#[derive(Clone, Debug, Default)]
pub(super) struct FilterFlags {
    typed: Vec<(FilterFlag, String, bool)>,
}

impl FilterFlags {
    /// A builder that has them all.
    pub(super) fn builder(&self) -> FilterBuilder {
        let mut builder = FilterBuilder::default();
        for (flag, value, not) in &self.typed {
            builder.add(*flag, value, *not);
        }
        builder
    }
}

fn arguments() -> impl Iterator<Item = Arg> {
    let switch = |name: &'static str| {
        // With a value behind the scenes, so that each occurrence has its place.
        Arg::new(name)
            .long(name)
            .action(ArgAction::Append)
            .num_args(0)
            .default_missing_value("true")
    };
    let filters = FilterFlag::ALL.into_iter().map(move |flag| {
        let argument = if flag.takes_value() {
            Arg::new(flag.name())
                .long(flag.name())
                .action(ArgAction::Append)
                .value_name("VALUE")
        } else {
            switch(flag.name())
        };
        let argument = match flag.short() {
            Some(short) => argument.short(short),
            None => argument,
        };
        argument.help(flag.help()).help_heading("Filters")
    });
    let not = switch(NOT)
        .help("Turns the next filter round: hide what it matches")
        .help_heading("Filters");
    filters.chain([not])
}

impl Args for FilterFlags {
    fn augment_args(command: Command) -> Command {
        command.args(arguments())
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FilterFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut typed: Vec<(usize, Option<(FilterFlag, String)>)> = Vec::new();
        for flag in FilterFlag::ALL {
            let values = matches.get_many::<String>(flag.name());
            let places = matches.indices_of(flag.name());
            if let (Some(values), Some(places)) = (values, places) {
                typed.extend(places.zip(values.map(|value| Some((flag, value.clone())))));
            }
        }
        typed.extend(
            matches
                .indices_of(NOT)
                .into_iter()
                .flatten()
                .map(|place| (place, None)),
        );
        typed.sort_by_key(|(place, _)| *place);
        let mut flags = Self::default();
        let mut not = false;
        for (_, what) in typed {
            match what {
                None => not = true,
                Some((flag, value)) => {
                    flags.typed.push((flag, value, not));
                    not = false;
                }
            }
        }
        if not {
            return Err(clap::Error::raw(
                ErrorKind::MissingRequiredArgument,
                "--not stands before a filter, and none comes after it\n",
            ));
        }
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
