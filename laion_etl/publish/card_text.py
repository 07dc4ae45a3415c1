"""Text shared by the card, the licence file and the Croissant metadata: uses, limits, biases, how to cite."""

DESCRIPTION = (
    "Links to images on the web with their alt texts, selected by the rules of LAION-5B: CLIP must find that "
    "image and text belong together. Links and texts only, no images. Uncurated; for research."
)

LICENSE_NAME = "links-and-texts-only"
LICENCE = (
    "A licence link on a page is a hint, not a grant: it may belong to something else on that page. Images "
    "stay under their own copyright, texts under that of their authors. The pipeline grants no licence to "
    "any image or text."
)

USES = (
    "Research on training image-text models at scale, on filtering, and on what such data does to models.",
    "Study of the web's image texts themselves: languages, licences, duplicates, biases.",
)
MISUSES = (
    "Use in products without further review: no person has looked through it, and filters miss things.",
    "Identifying people, or inferring anything about a person from an image.",
    "Anything that requires the consent of the images' owners: a link is not a permission.",
)
LIMITS = (
    "Alt texts often describe images badly or not at all, and many are advertising.",
    "Languages are guessed from short texts. Rare languages are confused with their neighbours.",
    "Links die and images change after they were scored: compare the SHA-256 of what you download.",
    "Pairs are unique by URL and text. The same image may be included several times under other URLs.",
    "Thresholds depend on one model: what it does not understand is missing, however good the text.",
    "Safety tags are a classifier's estimates. UNLIKELY is not a clearance.",
)
BIASES = (
    "The web over-represents English, rich countries, shops and stock photographs.",
    "Texts carry the prejudices of the web. A similarity score only says that CLIP finds image and text "
    "close, and CLIP shares those prejudices.",
    "CLIP knows English best: pairs in other languages have a lower threshold and are still judged worse.",
    "The safety classifier errs more for some groups of people and some cultures than for others.",
    "Sites that opt out or block crawlers are missing, and they are not spread evenly over kinds of sites.",
)
PERSONAL = (
    "Web images show faces and personal data, and alt texts name people. Nothing was anonymised. "
    "Removal can be requested; see the dataset card."
)

BIBTEX = """@inproceedings{schuhmann2022laion5b,
  title     = {{LAION-5B}: An open large-scale dataset for training next generation image-text models},
  author    = {Schuhmann, Christoph and Beaumont, Romain and Vencu, Richard and Gordon, Cade and
               Wightman, Ross and Cherti, Mehdi and Coombes, Theo and Katta, Aarush and Mullis, Clayton and
               Wortsman, Mitchell and Schramowski, Patrick and Kundurthy, Srivatsa and Crowson, Katherine and
               Schmidt, Ludwig and Kaczmarczyk, Robert and Jitsev, Jenia},
  booktitle = {Advances in Neural Information Processing Systems, Datasets and Benchmarks Track},
  year      = {2022},
  url       = {https://arxiv.org/abs/2210.08402}
}
"""
