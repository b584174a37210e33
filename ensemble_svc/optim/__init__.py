"""Update rules, their schedules and averages, for one member and for K stacked ones."""
