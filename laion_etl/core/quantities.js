// Numbers with what they count, as quantities.py writes them: 1 pair, 2,000 pairs. The dashboard and the search page load it.

const whole = new Intl.NumberFormat("en");

export const count = (number) => whole.format(number);
export const quantity = (number, one, several = `${one}s`) => `${count(number)} ${number === 1 ? one : several}`;
