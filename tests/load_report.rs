//! The report: that everything a record says reaches the page, that nothing else does, and that a
//! browser draws it.

#[path = "report/browser.rs"]
mod browser;
#[path = "report/sample.rs"]
mod sample;

use std::fs;
use std::path::{Path, PathBuf};

use ringdove::load::record::{Fault, Lab, Look, Scenario, Second, Side, Summary, Verdict, View};
use ringdove::load::report::{Report, ReportError, paint};
use ringdove::random::Random;
use sample::{BEGUN_MS, WELL, seconds, write_json, write_lab, write_run};

/// Pages stay here after the tests, for whoever wants to look at them.
fn place(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-report").join(name);
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    place
}

/// The page of one directory, checked for what every page must be.
fn page(directory: &Path) -> String {
    let html = Report::read(&[directory]).unwrap().html();
    fs::write(directory.join("report.html"), &html).unwrap();
    assert_well_formed(&html);
    assert!(!html.contains("NaN") && !html.contains("inf\""), "a number that is none");
    html
}

/// Every tag that is opened is closed, in order, and every id is there once.
fn assert_well_formed(html: &str) {
    const VOID: [&str; 4] = ["meta", "link", "br", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> before {:.80}", rest);
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
            if ["script", "style"].contains(&name) {
                rest = &rest[rest.find(&format!("</{name}>")).expect("it ends")..];
            }
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    let mut ids: Vec<&str> =
        html.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an id is there twice");
}

/// The part of a page that is one figure.
fn figure<'a>(html: &'a str, id: &str) -> &'a str {
    let from = html.find(&format!("<figure id=\"{id}\">")).unwrap_or_else(|| panic!("no {id}"));
    &html[from..from + html[from..].find("</figure>").unwrap()]
}

#[test]
fn every_plot_of_a_split_has_a_title_axes_units_and_both_widths() {
    let directory = place("lab");
    write_lab(&directory);
    let html = page(&directory);
    let plots = [
        ("faults", "What was broken, and when", ""),
        ("throughput", "Requests answered as asked, per second", "per second"),
        ("availability", "Availability for each side", "%"),
        ("latency-1", "Latency from when a request was due, majority", "ms, log"),
        ("latency-2", "Latency from when a request was due, minority", "ms, log"),
        ("outcomes", "What became of the requests", "per second"),
        ("hints", "Hinted writes that wait for their owners", "hints"),
        ("differing", "Keys whose owners&#39; copies differ", "keys"),
        ("siblings", "Keys with siblings", "keys"),
        ("views", "How each node (bold) sees the others", ""),
    ];
    for (slug, title, unit) in plots {
        let figure = figure(&html, &format!("lab-1-scenario-1-{slug}"));
        assert!(figure.contains(&format!("<h3>{title}")), "{slug}: {title}");
        assert_eq!(figure.matches("role=\"img\"").count(), 2, "{slug}");
        assert_eq!(figure.matches("<desc ").count(), 2, "{slug}");
        assert_eq!(figure.matches(">80\u{a0}s</text>").count(), 1, "{slug}: time, wide");
        assert!(figure.contains("class=\"mark healed\""), "{slug}: heal");
        let unit = format!("class=\"unit\" x=\"0\" y=\"11\">{unit}</text>");
        assert!(
            figure.matches(&unit).count() == 2 || ["faults", "views"].contains(&slug),
            "{slug}"
        );
    }
}

#[test]
fn the_verdicts_come_first_and_in_words() {
    let directory = place("words");
    write_lab(&directory);
    let html = page(&directory);
    let top = &html[..html.find("<section").unwrap()].replace('\u{a0}', " ");
    for words in [
        "1 of 6 did not end as it must: 10 rolling-restart. Without a verdict: 16 with-the-minority.",
        "no acknowledged write was lost, nothing deleted or replaced came back",
        "ringdove 0.1.0 · seed 42 · one machine · 21 November 2026, 14:00 UTC",
        "<a href=\"#lab-1-scenario-1\">split-sloppy</a>",
        "</span> all holds</span>",
        "</span> 1 of 2 fails</span>",
        "copies\">7.4 s</td><td data-name=\"Lost\">nothing</td>",
        "\">not seen by the end</td>",
        "4,112 writes to a later one",
        "no record",
    ] {
        assert!(top.contains(words), "{words} in\n{top}");
    }
    for section in html.split("<section").skip(1) {
        let id = section.split('"').nth(3).unwrap();
        assert!(top.contains(&format!("href=\"#{id}\"")), "{id} has no link");
    }
}

#[test]
fn what_was_measured_is_told_in_words_below_each_title() {
    let directory = place("captions");
    write_lab(&directory);
    let html = page(&directory).replace('\u{a0}', " ");
    let availability = figure(&html, "lab-1-scenario-2-availability");
    assert!(availability.contains("minority 30.") && availability.contains("Otherwise"));
    assert!(
        figure(&html, "lab-1-scenario-1-faults")
            .contains("All copies equal 7.4 s after the last fault was lifted.")
    );
    let views = figure(&html, "lab-1-scenario-1-views");
    assert!(views.contains("n1 by 2, n2 by 2, n3 by 2, n4 by 3 and n5 by 3"), "{views:.600}");
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let directory = place("same");
    write_lab(&directory);
    let report = || Report::read(&[&directory]).unwrap();
    assert_eq!(report().html(), report().html());
    let twice = Report::read(&[&directory, &directory]).unwrap().pictures();
    assert_eq!((&*twice[0].name, &*twice[5].name), ("01-split-sloppy", "01-split-sloppy-2"));
    let pictures = || report().pictures().into_iter().map(|one| one.html).collect::<Vec<_>>();
    assert_eq!(pictures(), pictures());
}

#[test]
fn text_from_records_cannot_become_markup() {
    const NASTY: &str = "</script></text><script>alert('x')</script>\"'&<img src=x onerror=y>";
    let directory = place("nasty");
    let mut second = Second { at_ms: BEGUN_MS, due: 9, ok: 5, ..Second::default() };
    second.failed.insert(NASTY.into(), 4);
    write_run(&directory.join("00-it/side"), &[second]);
    let nasty = || NASTY.to_owned();
    let scenario = Scenario {
        number: 1,
        name: nasty(),
        title: nasty(),
        teaches: nasty(),
        setting: nasty(),
        begun_ms: BEGUN_MS,
        ended_ms: BEGUN_MS + 30_000,
        nodes: vec![nasty(), "n2".into()],
        faults: vec![Fault { label: nasty(), from_ms: BEGUN_MS, to_ms: BEGUN_MS + 20_000 }],
        sides: vec![Side { name: nasty(), nodes: vec![nasty()], run: "side".into() }],
        views: vec![View { at_ms: BEGUN_MS, node: nasty(), peer: "n2".into(), state: nasty() }],
        verdicts: vec![Verdict { text: nasty(), holds: false, evidence: nasty() }],
        ..Scenario::default()
    };
    write_json(&directory.join("00-it/scenario.json"), &scenario);
    let lab = Lab { network: nasty(), program: nasty(), scenarios: vec!["00-it".into()], seed: 1 };
    write_json(&directory.join("lab.json"), &lab);
    let html = page(&directory);
    assert!(!html.contains("<img") && !html.contains("<script>alert"));
    // Twice: the page's own, and the numbers of a plot.
    assert!(html.contains("&lt;img src=x"));
    for picture in Report::read(&[&directory]).unwrap().pictures() {
        assert!(!picture.html.contains("<img") && !picture.html.contains("<script"));
        assert!(!picture.name.contains(['/', '<', ' ']), "{}", picture.name);
    }
}

#[test]
fn records_with_almost_nothing_in_them_give_a_page() {
    let directory = place("sparse");
    for (name, text) in [
        ("lab.json", "{\"scenarios\":[\"01-a\",\"02-b\",\"03-c\"],\"from_the_future\":{}}"),
        ("01-a/scenario.json", "{}"),
        ("02-b/scenario.json", "{\"sides\":[{\"run\":\"gone\"}],\"views\":[{\"node\":\"n9\"}]}"),
        ("03-c/scenario.json", "{\"begun_ms\": 5,"),
    ] {
        fs::create_dir_all(directory.join(name).parent().unwrap()).unwrap();
        fs::write(directory.join(name), text).unwrap();
    }
    let html = page(&directory);
    assert!(html.contains("nothing was recorded"));
    assert!(
        html.contains("There is no record of it") && html.contains("03-c/scenario.json line 1")
    );
}

#[test]
fn a_run_of_one_second_is_drawn_as_dots() {
    let directory = place("second");
    write_run(&directory, &seconds(1, 100, &[], WELL, &mut Random::new(1)));
    let html = page(&directory);
    assert!(figure(&html, "run-1-throughput").contains("<circle class=\"dot c1\""));
    // Of fifty reads none is one in a thousand.
    let distribution = figure(&html, "run-1-distribution");
    assert!(distribution.contains(">90 %<") && !distribution.contains(">99.9 %<"));
}

#[test]
fn a_run_without_a_single_second_says_so() {
    let directory = place("empty");
    write_run(&directory, &[]);
    assert!(page(&directory).contains("No second of any client was recorded."));
}

#[test]
fn a_run_that_was_killed_is_summed_up_without_its_last_half_line() {
    let directory = place("killed");
    write_run(&directory, &seconds(3, 100, &[], WELL, &mut Random::new(1)));
    fs::remove_file(directory.join("summary.json")).unwrap();
    let path = directory.join("seconds.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 40]).unwrap();
    let two: u64 =
        text.lines().take(2).map(|line| serde_json::from_str::<Second>(line).unwrap().ok).sum();
    assert!(page(&directory).contains(&format!("<td>{two}</td>")));
    // A whole line that is none is another matter.
    fs::write(&path, format!("{{\n{text}")).unwrap();
    let refused = Report::read(&[&directory]).unwrap_err();
    assert!(matches!(refused, ReportError::NoJson { line: 1, .. }), "{refused}");
}

#[test]
fn huge_values_are_drawn_and_stay_short() {
    let directory = place("huge");
    let most = u64::MAX;
    let second = |at_ms: u64| Second {
        at_ms,
        due: most,
        ok: most,
        failed: [("timeout".to_owned(), most), ("unavailable".to_owned(), most)].into(),
        unknown: most,
        p50_us: Some(most),
        p99_us: Some(0),
        ..Second::default()
    };
    write_run(&directory.join("run"), &[]);
    let lines = [second(0), second(most)].map(|second| serde_json::to_string(&second).unwrap());
    fs::write(directory.join("run/seconds.jsonl"), lines.join("\n") + "\n").unwrap();
    let scenario = Scenario {
        begun_ms: 1,
        ended_ms: most,
        faults: vec![Fault { label: "x".repeat(3000), from_ms: most, to_ms: 1 }],
        sides: vec![Side { name: "s".repeat(3000), nodes: vec![], run: "run".into() }],
        looks: vec![Look { at_ms: most, hints: Some(most), differing: Some(0), siblings: None }],
        healed_ms: Some(most),
        converged_ms: Some(0),
        ..Scenario::default()
    };
    write_json(&directory.join("scenario.json"), &scenario);
    assert!(page(&directory).len() < 200_000);
}

#[test]
fn a_day_has_no_more_points_than_a_screen_has_room_for() {
    let directory = place("day");
    write_run(&directory, &seconds(86_400, 100, &[], WELL, &mut Random::new(1)));
    let html = page(&directory);
    assert!(html.len() < 400_000, "{}", html.len());
    assert!(html.contains("Each point stands for 216 seconds"));
    assert!(html.contains(">10\u{a0}h</text>"));
}

#[test]
fn a_directory_without_records_is_refused_by_name() {
    let directory = place("nothing");
    let refused = Report::read(&[&directory]).unwrap_err();
    assert!(matches!(refused, ReportError::NoRecord(_)));
    assert!(refused.to_string().contains("load-report/nothing holds no lab.json"));
}

#[test]
fn a_run_says_on_top_what_came_of_it() {
    let directory = place("one");
    write_run(&directory, &seconds(20, 1000, &[(5, 9)], sample::STRAINED, &mut Random::new(1)));
    let html = page(&directory).replace('\u{a0}', " ");
    let lead = html.split("<p class=\"lead\">").nth(1).unwrap().split("</p>").next().unwrap();
    assert!(
        lead.starts_with(
            "972/s answered over 20 s, 96.1 % of those that ended; 99 of 100 within 3.3 ms. "
        ),
        "{lead}"
    );
    assert!(
        lead.contains("716 failed, 79 of unknown outcome. ")
            && lead.contains("no acknowledged write was lost"),
        "{lead}"
    );
}

#[test]
fn several_runs_are_compared_on_top() {
    let directory = place("several");
    let mut random = Random::new(1);
    for name in ["before", "after"] {
        write_run(&directory.join(name), &seconds(20, 1000, &[], WELL, &mut random));
        let path = directory.join(name).join("summary.json");
        let mut summary: Summary =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        summary.label = if name == "before" { "the old build".into() } else { String::new() };
        write_json(&path, &summary);
    }
    let report = Report::read(&[directory.join("before"), directory.join("after")]).unwrap();
    let html = report.html();
    fs::write(directory.join("report.html"), &html).unwrap();
    assert_well_formed(&html);
    let table = &html[html.find("<table").unwrap()..html.find("<section").unwrap()];
    assert!(table.contains(">the old build<") && table.contains(">after<"));
}

#[test]
fn a_browser_draws_every_plot_at_every_width_and_has_nothing_to_say() {
    let Some(chromium) = browser::chromium() else { return };
    let directory = place("browser");
    let names = write_lab(&directory);
    write_run(&directory.join("run"), &seconds(60, 900, &[], WELL, &mut Random::new(3)));
    let html = Report::read(&[directory.clone(), directory.join("run")]).unwrap().html();
    for (width, drawn) in [(1200, "wide"), (520, "narrow")] {
        let (measured, console) = browser::measure(&chromium, &html, width, &directory);
        assert_eq!(console, Vec::<String>::new());
        let plots = measured["plots"].as_array().unwrap();
        assert_eq!(plots.len(), html.matches("<figure ").count(), "{width}");
        assert!(plots.len() > names.len() * 4);
        for plot in plots {
            let inside =
                [&plot["inside"][0], &plot["inside"][1]].map(|size| size.as_f64().unwrap());
            assert!(inside[0] > 200.0 && inside[1] > 40.0, "{plot}");
            assert!(plot["shapes"].as_u64().unwrap() > 4 && plot["texts"].as_u64().unwrap() > 3);
            assert_eq!(plot["drawn"], drawn, "{plot}");
            for fault in ["outside", "crossing"] {
                assert_eq!(plot[fault].as_array().unwrap().len(), 0, "{width}: {plot}");
            }
        }
        assert!(measured["scroll"].as_u64() <= measured["width"].as_u64(), "{width}: too wide");
        assert!(measured["read"].as_array().unwrap().len() > 10, "nothing under the pointer");
    }
}

#[test]
fn a_picture_is_1200_pixels_wide_and_as_high_as_its_plots() {
    if browser::chromium().is_none() {
        return;
    }
    let directory = place("pictures");
    let names = write_lab(&directory);
    let pictures = Report::read(&[&directory]).unwrap().pictures();
    let painted = paint(&pictures[..2], &directory).unwrap();
    for ((path, picture), name) in painted.iter().zip(&pictures).zip(&names) {
        assert_eq!(path, &directory.join(format!("{name}.png")));
        // The header of a PNG: eight bytes of signature, eight of its first chunk, then the size.
        let bytes = fs::read(path).unwrap();
        let size = [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()));
        assert_eq!(size, [1200, picture.height * 12 / 10]);
    }
    let left = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(
        left.into_iter().all(|name| !name.to_string_lossy().starts_with('.')),
        "scratch is left"
    );
}
