"""The host side: rows and images as users hand them over, the forms that losses take, and plans of capacities."""
