//! The command line: thin, calls the library.

fn main() -> std::process::ExitCode {
    let file = std::env::args().nth(3).expect("serve --config FILE");
    let config = ringdove::server::config::Config::load(std::path::Path::new(&file), &[]);
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return std::process::ExitCode::from(2);
        }
    };
    match ringdove::server::run(config) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
