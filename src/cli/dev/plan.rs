//! The files of a development cluster: written where there are none, used where there are.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::super::args::Dev;
use super::super::config::refused;
use super::super::exit::{Exit, Failure};
use super::super::output;
use crate::server::config::Config;

/// A node that is to be started.
#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    /// `node-0`.
    pub(super) name: String,
    /// Its configuration file.
    pub(super) file: PathBuf,
    /// What stands in it.
    pub(super) config: Config,
    /// Whether it is to obey `ringdove fault`, whatever stands in it.
    pub(super) fault_injection: bool,
}

impl NodePlan {
    /// What is typed behind the program's name to start it.
    pub(super) fn words(&self) -> String {
        let flag = if self.fault_injection { " --fault-injection" } else { "" };
        format!("serve --config {}{flag}", self.file.display())
    }
}

/// Sees to it that every node has its configuration.
pub(super) fn prepare(dev: &Dev) -> Result<Vec<NodePlan>, Failure> {
    let nodes = usize::from(dev.nodes);
    let last_port = usize::from(dev.base_port) + 10 * (nodes - 1) + 2;
    if last_port > usize::from(u16::MAX) {
        let message = format!("{nodes} nodes from port {} on need port {last_port}", dev.base_port);
        return Err(Failure::usage(message).hint("choose a lower --base-port"));
    }
    // A node's file stands in the node's own folder, so the paths in it are not relative to here.
    let root = std::path::absolute(&dev.dir).map_err(|error| unusable(&dev.dir, &error))?;
    let plans: Vec<NodePlan> =
        (0..nodes).map(|index| prepare_node(dev, &root, index)).collect::<Result<_, _>>()?;
    if dev.dir.join(format!("node-{nodes}")).exists() {
        let dir = dev.dir.display();
        output::note(&format!("dev: {dir} has more than {nodes} nodes; the others stay down"));
    }
    Ok(plans)
}

fn prepare_node(dev: &Dev, root: &Path, index: usize) -> Result<NodePlan, Failure> {
    let nodes = usize::from(dev.nodes);
    let name = format!("node-{index}");
    let folder = dev.dir.join(&name);
    let file = folder.join("ringdove.toml");
    fs::create_dir_all(&folder).map_err(|error| unusable(&folder, &error))?;
    let text = Config::for_dev(index, nodes, root, dev.base_port);
    match fs::File::create_new(&file) {
        Ok(mut new) => new.write_all(text.as_bytes()).map_err(|error| unusable(&file, &error))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(unusable(&file, &error)),
    }
    let config = Config::load(&file, &[]).map_err(|error| refused(&error))?;
    let wanted = Config::from_toml(&text, "for_dev", &[]).map_err(|error| refused(&error))?;
    tell_differences(&file, &config, &wanted);
    Ok(NodePlan { name, file, config, fault_injection: dev.fault_injection })
}

/// Says where a file that was there is not what this command line would have written.
fn tell_differences(file: &Path, there: &Config, wanted: &Config) {
    let say = |setting: &str, is: &str, would_be: &str| {
        if is != would_be {
            let file = file.display();
            output::note(&format!("dev: {file} says {setting} = {is}, not {would_be}; it is used"));
        }
    };
    say("listen.address", &there.listen.address, &wanted.listen.address);
    let members = |config: &Config| config.cluster.initial_members.to_string();
    say("cluster.initial_members", &members(there), &members(wanted));
}

/// Fails if another program has one of the ports: the nodes would only die one by one.
pub(super) fn check_ports(plans: &[NodePlan]) -> Result<(), Failure> {
    for NodePlan { name, config, .. } in plans {
        let listen = &config.listen;
        for address in [&listen.address, &listen.text, &listen.admin] {
            if address.is_empty() {
                continue;
            }
            if let Err(error) = TcpListener::bind(address.as_str()) {
                let message = format!("{name} cannot listen on {address}: {error}");
                let hint = "is another cluster running? Stop it, or choose others with \
                            --base-port 7600 --dir ./ringdove-7600";
                return Err(Failure::new(Exit::Usage, "port", message).hint(hint));
            }
        }
    }
    Ok(())
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot use {}: {error}", path.display()))
        .hint("choose a folder that can be written with --dir")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(dir: &Path, nodes: u16, base_port: u16) -> Dev {
        Dev { nodes, dir: dir.to_owned(), base_port, respawn: false, fault_injection: false }
    }

    #[test]
    fn files_are_written_once_and_then_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let plans = prepare(&dev(dir.path(), 2, 7400)).unwrap();
        assert_eq!(plans[1].config.listen.address, "127.0.0.1:7410");
        assert_eq!(plans[1].config.node.data_dir, dir.path().join("node-1"));
        let again = prepare(&dev(dir.path(), 3, 7600)).unwrap();
        assert_eq!(again[1].config.listen.address, "127.0.0.1:7410");
        assert_eq!(again[2].config.listen.address, "127.0.0.1:7620");
    }

    #[test]
    fn ports_that_do_not_exist_and_ports_that_are_taken_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let failure = prepare(&dev(dir.path(), 10, 65_500)).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let mut plans = prepare(&dev(dir.path(), 1, 7400)).unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = &mut plans[0].config.listen;
        listen.address = taken.local_addr().unwrap().to_string();
        (listen.text, listen.admin) = (String::new(), String::new());
        assert_eq!(check_ports(&plans).unwrap_err().kind, "port");
        drop(taken);
        assert!(check_ports(&plans).is_ok());
    }
}
