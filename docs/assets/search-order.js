// Sphinx ranks a page by its best word. Here every word of the question that is in the title counts, then in the path.
var Scorer = {
  objNameMatch: 11, objPartialMatch: 6, objPrio: {0: 15, 1: 5, 2: -5}, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
  score: ([docname, title, anchor, descr, score]) => {
    const asked = (new URLSearchParams(window.location.search).get("q") ?? "").toLowerCase().match(/[\w-]{3,}/g) ?? [];
    const inTitle = asked.filter((word) => title.toLowerCase().includes(word.replace(/e?s$/, ""))).length;
    return score + 10 * inTitle + (docname.startsWith("how-to/") ? 3 : 0);
  },
};
