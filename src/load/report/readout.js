// What the lines say at the moment under the pointer, in all plots of a section at once.
(() => {
  for (const section of document.querySelectorAll('section')) {
    const plots = [...section.querySelectorAll('.plot')].flatMap((plot) => {
      const data = plot.querySelector('script');
      if (!data) return [];
      const line = document.createElement('div');
      line.className = 'readout';
      line.hidden = true;
      const words = line.appendChild(document.createElement('span'));
      plot.append(line);
      const { left, right, seconds } = data.dataset;
      return [{ plot, line, words, left: left / 960, right: right / 960, seconds: +seconds,
        readings: JSON.parse(data.textContent) }];
    });
    const hide = () => plots.forEach(({ line }) => { line.hidden = true; });
    const show = (event, under) => {
      const box = under.plot.getBoundingClientRect();
      const share = ((event.clientX - box.left) / box.width - under.left) / (under.right - under.left);
      if (share < 0 || share > 1) return hide();
      const at = share * under.seconds;
      for (const { plot, line, words, left, right, readings } of plots) {
        const reading = readings.find(([from, to]) => from <= at && at < to);
        line.style.left = `${(left + share * (right - left)) * 100}%`;
        line.classList.toggle('flip', share > 0.5);
        line.hidden = false;
        words.hidden = !reading || !reading[2];
        if (reading) words.textContent = `${Math.floor(at)} s: ${reading[2]}`;
      }
    };
    for (const under of plots) {
      under.plot.addEventListener('pointermove', (event) => show(event, under));
      under.plot.addEventListener('pointerleave', hide);
    }
  }
})();
