// Small pictures of the list's photographs, made one after the other once their rows come into view.

const SIDE = 96;

export class Thumbnails {
  #waiting = new Map();
  #busy = false;
  #watcher;

  /** @param box - the list that scrolls. */
  constructor(box) {
    this.photos = new WeakMap();
    this.#watcher = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (isIntersecting) this.#waiting.set(target, this.photos.get(target));
          else this.#waiting.delete(target);
        }
        this.#work();
      },
      { root: box, rootMargin: "200px" },
    );
  }

  /** Gives `row` its picture once it can be seen; gives back the row. */
  watch(row, photo) {
    this.photos.set(row, photo);
    this.#watcher.observe(row);
    return row;
  }

  /** The row is gone. */
  forget(row) {
    this.#watcher.unobserve(row);
    this.#waiting.delete(row);
  }

  async #work() {
    if (this.#busy) return;
    this.#busy = true;
    for (let next; (next = this.#waiting.entries().next().value); ) {
      const [row, photo] = next;
      this.forget(row);
      const canvas = await drawn(photo.file);
      if (canvas) row.firstElementChild.replaceChildren(canvas);
      else row.firstElementChild.classList.add("none");
    }
    this.#busy = false;
  }
}

/** The picture in a square, whole; null where the browser cannot decode it. */
async function drawn(file) {
  try {
    const picture = await createImageBitmap(file, { resizeWidth: 2 * SIDE, resizeQuality: "medium" });
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const share = Math.min(SIDE / picture.width, SIDE / picture.height);
    const [width, height] = [picture.width * share, picture.height * share];
    const paper = canvas.getContext("2d");
    paper.imageSmoothingQuality = "high";
    paper.drawImage(picture, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    picture.close();
    return canvas;
  } catch {
    return null;
  }
}
