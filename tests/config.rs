//! What an operator writes, and what they are told when it is wrong.
//!
//! The messages are golden files in `tests/golden/config`; `RINGDOVE_BLESS=1` writes them anew,
//! for a human to read the difference.
#![cfg(feature = "server")]

use ringdove::server::config::settings::{Kind, SETTINGS, Setting};
use ringdove::server::config::{Config, ConfigError, Durability};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn read(text: &str, overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Config::from_toml(text, "node.toml", &overrides)
}

fn refusal(text: &str, overrides: &[&str]) -> String {
    read(text, overrides).expect_err("this configuration should be refused").to_string()
}

/// Compares with the golden file of this name, or writes it.
fn golden(name: &str, text: &str, overrides: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let file = path.join(format!("{name}.txt"));
    let found = refusal(text, overrides) + "\n";
    if std::env::var_os("RINGDOVE_BLESS").is_some() {
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(&file, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(expected, found, "{name}: run with RINGDOVE_BLESS=1 if the new message is better");
}

fn manual() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ringdove.toml");
    std::fs::read_to_string(path).unwrap()
}

/// The manual with every `#key = value` line made real. Prose has a space after the `#`.
fn uncommented(manual: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => setting.into(),
        _ => line.to_string(),
    };
    manual.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn table(config: &Config) -> toml::Table {
    toml::Table::try_from(config).unwrap()
}

fn names(table: &toml::Table) -> BTreeSet<String> {
    let keys = |(section, keys): (&String, &toml::Value)| {
        let keys = keys.as_table().unwrap().keys();
        keys.map(|key| format!("{section}.{key}")).collect::<Vec<_>>()
    };
    table.iter().flat_map(keys).collect()
}

// -- layers --------------------------------------------------------------------------------------

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(read("", &[]).unwrap(), Config::default());
}

#[test]
fn the_file_wins_over_the_defaults_and_set_wins_over_the_file() {
    let file = "[requests]\ntimeout_ms = 700\nqueue = 9\n[storage]\ndurability = \"none\"\n";
    let config = read(file, &["requests.queue=10", "requests.queue=11"]).unwrap();
    assert_eq!(config.requests.timeout_ms, 700);
    assert_eq!(config.requests.queue, 11, "the last --set wins");
    assert_eq!(config.storage.durability, Durability::None);
    assert_eq!(config.requests.attempt_ms, Config::default().requests.attempt_ms);
}

#[test]
fn set_takes_text_with_and_without_quotes() {
    for argument in ["node.name=seven", "node.name=\"seven\"", "node.name = 'seven'"] {
        assert_eq!(read("", &[argument]).unwrap().node.name, "seven", "{argument}");
    }
    let config = read(
        "",
        &[
            "node.name=7",
            "listen.text=",
            "listen.insecure=true",
            "listen.address=10.0.0.1:7400",
            "cluster.seeds=[\"10.0.0.1:7400\", \"db.example:7400\"]",
            "log.level=warn,ringdove=debug",
            "cluster.partitions=0x800",
        ],
    )
    .unwrap();
    assert_eq!(config.node.name, "7");
    assert_eq!(config.listen.text, "");
    assert_eq!(config.listen.address, "10.0.0.1:7400");
    assert_eq!(config.cluster.seeds, ["10.0.0.1:7400", "db.example:7400"]);
    assert_eq!(config.log.level, "warn,ringdove=debug");
    assert_eq!(config.cluster.partitions, 2048);
}

#[test]
fn a_relative_data_directory_lies_beside_the_file_and_an_absolute_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[node]\ndata_dir = \"here\"\n").unwrap();
    assert_eq!(Config::load(&file, &[]).unwrap().node.data_dir, folder.path().join("here"));
    std::fs::write(&file, "[node]\ndata_dir = \"/there\"\n").unwrap();
    assert_eq!(Config::load(&file, &[]).unwrap().node.data_dir, PathBuf::from("/there"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("no/such/node.toml"), &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    assert!(error.to_string().contains("no/such/node.toml"), "{error}");
}

#[test]
fn a_password_does_not_reach_a_log_line() {
    let config = read("[listen]\npassword = \"swordfish\"\n", &[]).unwrap();
    assert_eq!(&*config.listen.password, "swordfish");
    assert!(!format!("{config:?}").contains("swordfish"));
}

#[test]
fn keys_of_gossip_are_two_at_most_long_enough_and_not_in_a_log_line() {
    let config = read("[gossip]\nkeys = [\"swordfish swordfish\"]\n", &[]).unwrap();
    assert_eq!(config.gossip_secrets(), [b"swordfish swordfish"]);
    assert!(!format!("{config:?}").contains("swordfish"));
    for bad in ["[\"too short\"]", "\"not a list, however long\"", "[1]"] {
        assert!(read("", &[&format!("gossip.keys={bad}")]).is_err(), "{bad}");
    }
    let three = "gossip.keys=[\"aaaaaaaaaaaaaaaa\", \"bbbbbbbbbbbbbbbb\", \"cccccccccccccccc\"]";
    assert!(read("", &[three]).is_err());
}

#[test]
fn without_a_key_others_than_this_machine_are_heard_only_on_a_trusted_network() {
    assert_eq!(Config::default().gossip_secrets().len(), 1);
    assert!(read("", &["listen.address=10.0.0.1:7400"]).is_err());
    assert!(read("", &["listen.address=10.0.0.1:7400", "listen.insecure=true"]).is_ok());
}

#[test]
fn a_probe_leaves_half_its_interval_to_those_who_help() {
    let config = read("[gossip]\nprobe_interval_ms = 400\n", &[]).unwrap();
    assert_eq!(config.swim().probe_timeout.as_millis(), 200);
}

#[test]
fn others_dial_the_advertised_address_or_else_the_one_listened_on() {
    assert_eq!(Config::default().advertised(), "127.0.0.1:7400");
    let config = read(
        "[listen]\naddress = \"0.0.0.0:7400\"\nadvertise = \"db1:7400\"\ninsecure = true\n",
        &[],
    );
    assert_eq!(config.unwrap().advertised(), "db1:7400");
}

#[test]
fn threads_and_shards_are_chosen_unless_given() {
    let chosen = Config::default();
    assert!(chosen.threads() >= 1 && (1..=8).contains(&chosen.shards()));
    let given = read("[node]\nthreads = 3\nshards = 5\n", &[]).unwrap();
    assert_eq!((given.threads(), given.shards()), (3, 5));
}

// -- the table of settings -----------------------------------------------------------------------

#[test]
fn the_rows_and_the_fields_are_the_same_settings() {
    let rows: BTreeSet<String> = SETTINGS.iter().map(|row| row.name.to_string()).collect();
    assert_eq!(rows.len(), SETTINGS.len(), "a name comes twice");
    assert_eq!(rows, names(&table(&Config::default())));
}

#[test]
fn every_default_is_within_its_own_range() {
    let everything = toml::to_string(&Config::default()).unwrap();
    assert_eq!(read(&everything, &[]).unwrap(), Config::default());
}

/// Both ends of every range reach their field, and the next number beyond is refused: a field too
/// narrow for its row would show here.
#[test]
fn the_ends_of_every_range_are_admitted_and_nothing_beyond() {
    for row in SETTINGS {
        let (Kind::Whole(min, max) | Kind::PowerOfTwo(min, max)) = row.kind else { continue };
        for number in [min, max] {
            let config = read("", &[&format!("{}={number}", row.name)]).unwrap();
            let found = &table(&config)[row.section()][row.key()];
            assert_eq!(found.as_integer(), Some(number as i64), "{}", row.name);
        }
        let beyond = [(min as i64 - 1).to_string(), (max + 1).to_string(), u64::MAX.to_string()];
        for number in beyond {
            let message = refusal("", &[&format!("{}={number}", row.name)]);
            assert!(message.contains(&row.kind.range()), "{message}");
        }
    }
}

#[test]
fn every_word_of_a_choice_reaches_its_field() {
    for row in SETTINGS {
        let Kind::Choice(words) = row.kind else { continue };
        for word in words {
            let config = read("", &[&format!("{}={word}", row.name)]).unwrap();
            assert_eq!(table(&config)[row.section()][row.key()].as_str(), Some(*word));
        }
    }
}

#[test]
fn addresses_are_host_and_port() {
    let row = Setting::of("listen.advertise").unwrap();
    for good in ["127.0.0.1:7400", "[::1]:7400", "node-1.example.org:1", "localhost:65535", ""] {
        assert!(read("", &[&format!("{}={good}", row.name)]).is_ok(), "{good}");
    }
    for bad in
        ["7400", ":7400", "host", "host:", "host:65536", "http://host:1", "::1:7400", "a b:1"]
    {
        assert!(read("", &[&format!("{}={bad}", row.name)]).is_err(), "{bad}");
    }
}

#[test]
fn only_loopback_is_listened_on_without_a_word_that_the_network_is_trusted() {
    for setting in ["listen.address", "listen.text", "listen.admin"] {
        for good in ["127.0.0.1:9000", "127.9.9.9:9000", "[::1]:9000", "localhost:9000"] {
            assert!(read("", &[&format!("{setting}={good}")]).is_ok(), "{setting} {good}");
        }
        for bad in ["10.0.0.1:9000", "[2001:db8::1]:9000", "db1:9000", "localhost.example:9000"] {
            let argument = format!("{setting}={bad}");
            assert!(read("", &[&argument]).is_err(), "{setting} {bad}");
            assert!(read("", &[&argument, "listen.insecure=true"]).is_ok(), "{setting} {bad}");
        }
    }
}

#[test]
fn a_misspelt_log_level_is_refused_where_tracing_would_log_nothing() {
    for bad in ["inof", "", "ringdove=loud", "warn,debig"] {
        assert!(read("", &[&format!("log.level={bad}")]).is_err(), "{bad}");
    }
}

// -- the manual ----------------------------------------------------------------------------------

#[test]
fn the_manual_as_it_stands_means_the_defaults() {
    assert_eq!(read(&manual(), &[]).unwrap(), Config::default());
}

#[test]
fn the_manual_shows_every_setting_once_with_its_default() {
    let text = uncommented(&manual());
    let shown: toml::Table = text.parse().unwrap();
    assert_eq!(shown, table(&Config::default()));
    assert_eq!(read(&text, &[]).unwrap(), Config::default());
}

/// The paragraph above each setting names the ends of its range or the words of its choice.
#[test]
fn the_manual_names_every_range() {
    let manual = manual();
    let mut paragraph = String::new();
    let mut section = "";
    for line in manual.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some(prose) = line.strip_prefix("# ") {
            paragraph += prose;
            paragraph.push(' ');
        } else if let Some((key, _)) = line.strip_prefix('#').and_then(|it| it.split_once(" = ")) {
            let row = Setting::of(&format!("{section}.{key}")).unwrap();
            let ends = match row.kind {
                Kind::Whole(min, max) | Kind::PowerOfTwo(min, max) => {
                    vec![format!("{min} to {max}")]
                }
                Kind::Choice(words) => words.iter().map(|word| format!("\"{word}\"")).collect(),
                _ => Vec::new(),
            };
            for end in ends {
                assert!(paragraph.contains(&end), "{}: {end} is not in: {paragraph}", row.name);
            }
        } else {
            paragraph.clear();
        }
    }
}

#[test]
fn the_files_of_a_development_cluster_load_and_agree_with_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("a folder with \"quotes\" and \\");
    let configs: Vec<Config> = (0..3)
        .map(|index| {
            let text = Config::for_dev(index, 3, &dir, 7400);
            Config::from_toml(&text, "dev", &[]).unwrap()
        })
        .collect();
    for (index, config) in configs.iter().enumerate() {
        assert_eq!(config.node.name, format!("node-{index}"));
        assert_eq!(config.node.data_dir, dir.join(format!("node-{index}")));
        assert_eq!(config.cluster.initial_members, 3);
        assert_eq!(config.cluster.seeds[index], config.listen.address);
        assert_eq!(config.cluster, configs[0].cluster);
    }
    assert_eq!(configs[2].listen.address, "127.0.0.1:7420");
    assert_eq!(configs[2].listen.text, "127.0.0.1:7421");
    assert_eq!(configs[2].listen.admin, "127.0.0.1:7422");
}

// -- what is said when it is wrong ---------------------------------------------------------------

#[test]
fn an_unknown_key_names_the_nearest_one() {
    golden("unknown_key", "[requests]\ntimeout_ms = 100\natempt_ms = 100\n", &[]);
}

#[test]
fn a_key_under_the_wrong_section_is_sent_to_its_own() {
    golden("wrong_section", "timeout_ms = 5\n\n[node]\ncache_mb = 12\n", &[]);
}

#[test]
fn an_unknown_section_names_the_nearest_one() {
    golden("unknown_section", "[storag]\ncache_mb = 12\n\n[tls]\ncertificate = \"x\"\n", &[]);
}

#[test]
fn a_section_that_is_no_section_is_explained() {
    golden("not_a_section", "[[node]]\nname = \"a\"\n", &["node=3"]);
}

#[test]
fn a_wrong_type_shows_the_default_as_an_example() {
    golden("wrong_type", "[requests]\n\ttimeout_ms = \"soon\" # tabs\n", &[]);
}

#[test]
fn a_wrong_item_of_a_list_is_named() {
    golden("wrong_item", "[cluster]\nseeds = [\n  \"127.0.0.1:7400\",\n  \"db2\",\n]\n", &[]);
}

#[test]
fn a_number_out_of_range_names_the_range() {
    golden("out_of_range", "[limits]\nvalue_bytes = 99_000_000\n", &[]);
}

#[test]
fn partitions_that_are_no_power_of_two_are_refused() {
    golden("not_a_power_of_two", "[cluster]\npartitions = 1000\n", &[]);
}

#[test]
fn a_word_that_is_no_choice_names_the_choices() {
    golden("wrong_choice", "[storage]\ndurability = \"fast\"\n", &[]);
}

#[test]
fn a_syntax_error_is_shown_where_it_is() {
    golden("syntax_error", "[node]\nname = node-1\n", &[]);
}

#[test]
fn a_key_that_comes_twice_is_refused() {
    golden("duplicate_key", "[node]\nweight = 100\nweight = 200\n", &[]);
}

#[test]
fn an_address_beyond_loopback_is_refused_without_insecure() {
    golden("not_loopback", "[listen]\naddress = \"192.168.1.7:7400\"\n", &[]);
}

#[test]
fn an_address_that_nobody_can_dial_is_refused() {
    golden("nobody_can_dial", "[listen]\naddress = \"0.0.0.0:7400\"\ninsecure = true\n", &[]);
}

#[test]
fn every_problem_of_the_file_and_of_the_overrides_is_told_at_once() {
    let overrides = ["requests.timeout_ms=soon", "requests.timeout", "reqests.queue=1"];
    golden("several", "[storage]\ncache = 1\n[node]\nweight = 0\nname = \"é\"\n", &overrides);
}
