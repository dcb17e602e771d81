// What can be undone: objects and picture as they were before each change.
const LONGEST = 200;

export function history(state) {
  let past = [];
  const text = () => JSON.stringify(state.objects);
  const differs = (now) => (step) => step.picture !== state.picture || step.objects !== now;

  return {
    // To be called before what may change something; where nothing came of it, the step is passed over.
    keep() {
      past = [...past, { objects: text(), picture: state.picture, selected: state.selected }].slice(-LONGEST);
    },
    // The objects, picture and selection before the last change, or undefined.
    back() {
      past = past.slice(0, past.findLastIndex(differs(text())) + 1);
      const step = past.pop();
      return step && { ...step, objects: JSON.parse(step.objects) };
    },
    some: () => past.some(differs(text())),
    clear: () => (past = []),
  };
}
