/** Wheel, drag, pinch and keys on the stage; drag and keys on the divider. */

export interface Actions {
  /** Zoom about a point of the stage in device pixels; its middle when left out. */
  zoomBy(ratio: number, atY?: number, atX?: number): void;
  /** Move the photograph by device pixels. */
  moveBy(dy: number, dx: number): void;
  fit(): void;
  /** Place the divider at a fraction of the width, or move it by one. */
  split(value: number, relative: boolean): void;
}

interface Point {
  readonly y: number;
  readonly x: number;
}

export function gestures(stage: HTMLElement, handle: HTMLElement, actions: Actions): void {
  wheel(stage, actions);
  pointers(stage, actions);
  divider(stage, handle, actions);
  keys(stage, handle, actions);
}

function at(stage: HTMLElement, event: MouseEvent): Point {
  const box = stage.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  return { y: (event.clientY - box.top) * ratio, x: (event.clientX - box.left) * ratio };
}

function wheel(stage: HTMLElement, actions: Actions): void {
  // The divider lies over the stage; the wheel zooms there too.
  stage.parentElement!.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      // A pinch on a touchpad arrives as a wheel with Ctrl and small steps.
      const speed = event.ctrlKey ? 0.01 : 0.0015;
      const point = at(stage, event);
      actions.zoomBy(Math.exp(-event.deltaY * lines * speed), point.y, point.x);
    },
    { passive: false },
  );
  stage.addEventListener("dblclick", (event) => {
    const point = at(stage, event);
    actions.zoomBy(1.5, point.y, point.x);
  });
}

function pointers(stage: HTMLElement, actions: Actions): void {
  const down = new Map<number, Point>();
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(stage, event));
    stage.classList.add("moving");
  });
  stage.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (before === undefined) {
      return;
    }
    const now = at(stage, event);
    const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    down.set(event.pointerId, now);
    if (other === undefined) {
      actions.moveBy(now.y - before.y, now.x - before.x);
      return;
    }
    // Two fingers: the middle between them moves, their distance zooms.
    actions.moveBy((now.y - before.y) / 2, (now.x - before.x) / 2);
    const ratio = distance(now, other) / Math.max(1, distance(before, other));
    actions.zoomBy(ratio, (now.y + other.y) / 2, (now.x + other.x) / 2);
  });
  const up = (event: PointerEvent): void => {
    down.delete(event.pointerId);
    stage.classList.toggle("moving", down.size > 0);
  };
  stage.addEventListener("pointerup", up);
  stage.addEventListener("pointercancel", up);
}

function distance(a: Point, b: Point): number {
  return Math.hypot(a.y - b.y, a.x - b.x);
}

function divider(stage: HTMLElement, handle: HTMLElement, actions: Actions): void {
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => {
    if (handle.hasPointerCapture(event.pointerId)) {
      const box = stage.getBoundingClientRect();
      actions.split((event.clientX - box.left) / box.width, false);
    }
  });
}

function keys(stage: HTMLElement, handle: HTMLElement, actions: Actions): void {
  stage.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const step = event.shiftKey ? 240 : 48;
    const ratio = event.shiftKey ? 1.25 : 1.05;
    const known: Record<string, () => void> = {
      ArrowUp: () => actions.moveBy(step, 0),
      ArrowDown: () => actions.moveBy(-step, 0),
      ArrowLeft: () => actions.moveBy(0, step),
      ArrowRight: () => actions.moveBy(0, -step),
      "+": () => actions.zoomBy(ratio),
      "=": () => actions.zoomBy(ratio),
      "-": () => actions.zoomBy(1 / ratio),
      _: () => actions.zoomBy(1 / ratio),
      "0": () => actions.fit(),
    };
    run(event, known);
  });
  handle.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    run(event, {
      ArrowLeft: () => actions.split(-step, true),
      ArrowDown: () => actions.split(-step, true),
      ArrowRight: () => actions.split(step, true),
      ArrowUp: () => actions.split(step, true),
      Home: () => actions.split(0, false),
      End: () => actions.split(1, false),
    });
  });
}

function run(event: KeyboardEvent, known: Record<string, () => void>): void {
  const action = Object.hasOwn(known, event.key) ? known[event.key] : undefined;
  if (action !== undefined) {
    event.preventDefault();
    action();
  }
}
