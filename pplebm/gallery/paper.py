"""Papers: where a page comes from, kept in parts once, shown as a line of text and as BibTeX."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from pplebm.errors import PplebmError

NAMED = 6  # authors that a line names all; of more, the first alone
CONFERENCES = {
    "AAAI": "Proceedings of the AAAI Conference on Artificial Intelligence",
    "AISTATS": "Proceedings of the International Conference on Artificial Intelligence and Statistics",
    "CVPR": "Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    "EACL": "Proceedings of the Conference of the European Chapter of the Association for Computational Linguistics",
    "ECCV": "Proceedings of the European Conference on Computer Vision",
    "ICCV": "Proceedings of the IEEE/CVF International Conference on Computer Vision",
    "ICLR": "Proceedings of the International Conference on Learning Representations",
    "ICML": "Proceedings of the International Conference on Machine Learning",
    "NeurIPS": "Advances in Neural Information Processing Systems",
}
JOURNALS = {"JMLR": "Journal of Machine Learning Research", "TMLR": "Transactions on Machine Learning Research"}


class Paper(NamedTuple):
    """A publication in parts; `str` gives its line of text.

    Args:
        authors: names as BibTeX has them, "Given Family and Given Family" or "Family, Given"; "others" at the end is
            for those who are not named.
        title: in full, as it was published.
        year: of the publication.
        conference: where it was published; the short names in `CONFERENCES` are spelt out in BibTeX.
        journal: in place of a conference, likewise with `JOURNALS`. A paper that has neither is a manuscript.
        arxiv: its number, without "arXiv:".
        volume, number, pages: of the journal; pages as "963--974".
        remark: what the page has to do with it, if it is not that model or algorithm itself.

    Example:
        >>> paper = Paper("Jakub M. Tomczak and Max Welling", "VAE with a VampPrior", 2018, "AISTATS", "", "1705.07120")
        >>> print(paper)
        Tomczak, Welling. VAE with a VampPrior. AISTATS 2018. arXiv:1705.07120
        >>> print(paper.bibtex())
        @inproceedings{tomczak2018vampprior,
          author = {Jakub M. Tomczak and Max Welling},
          title = {{VAE with a VampPrior}},
          booktitle = {Proceedings of the International Conference on Artificial Intelligence and Statistics},
          year = {2018},
          eprint = {1705.07120},
          archivePrefix = {arXiv}
        }
    """

    authors: str
    title: str
    year: int
    conference: str = ""
    journal: str = ""
    arxiv: str = ""
    volume: str = ""
    number: str = ""
    pages: str = ""
    remark: str = ""

    def __str__(self) -> str:
        authors = self.authors.split(" and ")
        families = [_family(author) for author in authors]
        all_named = len(authors) <= NAMED and authors[-1] != "others"
        issue = f"{self.volume}({self.number})," if self.number else f"{self.volume}," if self.volume else ""
        where = " ".join(filter(None, (self.conference or self.journal, issue, str(self.year))))
        parts = [", ".join(families) if all_named else f"{families[0]} et al", self.title, where]
        line = ". ".join(parts + [f"arXiv:{self.arxiv}"] * bool(self.arxiv))
        return f"{line}; {self.remark}" if self.remark else line

    @property
    def key(self) -> str:
        """Key of the entry: the first author's family name, the year, and the first two longer words of the title."""
        family = re.sub("[^a-z]", "", _ascii(_family(self.authors.split(" and ")[0])))
        words = [word for word in re.findall("[a-z0-9]+", _ascii(self.title)) if len(word) > 4]
        return f"{family}{self.year}{''.join(words[:2])}"

    def bibtex(self) -> str:
        """The entry: an article of a journal, a paper in proceedings, or a manuscript.

        Raises:
            PplebmError: if it has no author, title or year, or a journal and a conference.
        """
        if not (self.authors and self.title and self.year):
            raise PplebmError(f"the paper '{self}' lacks its authors, title or year; fill in PAPER of the page.")
        if self.conference and self.journal:
            raise PplebmError(f"the paper '{self}' is of a conference and of a journal; keep one of both in PAPER.")
        kind = "inproceedings" if self.conference else "article" if self.journal else "misc"
        fields = {
            "author": self.authors,
            "title": f"{{{self.title}}}",  # braces keep capitals as published
            "booktitle": CONFERENCES.get(self.conference, self.conference),
            "journal": JOURNALS.get(self.journal, self.journal),
            "volume": self.volume,
            "number": self.number,
            "pages": self.pages,
            "year": str(self.year),
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else "",
        }
        return entry(kind, self.key, fields)


def entry(kind: str, key: str, fields: dict[str, str]) -> str:
    """A BibTeX entry of the fields that are not empty; characters that TeX reads as commands are escaped.

    >>> print(entry("misc", "a2020b", {"author": "A & B", "title": "", "year": "2020"}))
    @misc{a2020b,
      author = {A \\& B},
      year = {2020}
    }
    """
    told = {name: re.sub("([&%$#_])", r"\\\1", value) for name, value in fields.items() if value}
    lines = [f"  {name} = {{{value}}}" for name, value in told.items()]
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"


def _family(author: str) -> str:
    """Family name of an author as BibTeX finds it: before a comma, else from a word in small letters on, or the last.

    >>> [_family(name) for name in ("Ying Nian Wu", "Aad van der Vaart", "Wu, Ying Nian", "others")]
    ['Wu', 'van der Vaart', 'Wu', 'others']
    """
    if "," in author:
        return author.partition(",")[0].strip()
    words = author.split()
    small = [i for i, word in enumerate(words[:-1]) if i and word[0].islower()]
    return " ".join(words[small[0] if small else -1 :]) if words else ""


def _ascii(text: str) -> str:
    """Small letters without accents."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
